// What this phone has to send. It is kept until the server says that it is stored, or that it never will be;
// each item keeps its id, so that the server counts it once however often it arrives.

const FINAL = new Set([400, 401, 403, 404, 409, 410, 413, 415, 422]);
const LONGEST_WAIT_MS = 8000;

export class Outbox {
  /** `changed(outbox)` is called when items or their notes change; `stored(item)` and `refused(item, problem)` at the end. */
  constructor(code, { changed, stored, refused }) {
    this.url = `/r/${code}/responses`;
    this.key = `crowdspike-outbox-${code}`;
    this.changed = changed;
    this.stored = stored;
    this.refused = refused;
    this.items = this.#read();
    this.tries = 0;
    this.sending = false;
    this.timer = 0;
  }

  /** The item of this activity that waits, if any. */
  waiting(activity) {
    return this.items.find((item) => item.activity === activity);
  }

  add(id, activity, body) {
    this.items.push({ id, activity, body });
    this.#write();
    this.changed(this);
    this.flush();
  }

  /** Sends what waits, now. */
  async flush() {
    clearTimeout(this.timer);
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.items.length > 0) {
        const waitMs = await this.#send(this.items[0]);
        if (waitMs > 0) {
          this.tries += 1;
          this.changed(this);
          this.timer = setTimeout(() => this.flush(), waitMs);
          return;
        }
        this.tries = 0;
        this.items.shift();
        this.#write();
        this.changed(this);
      }
    } finally {
      this.sending = false;
    }
  }

  /** 0 when the item is done with; else how long to wait before the next try. */
  async #send(item) {
    let response;
    try {
      response = await fetch(this.url, {
        method: "POST",
        body: item.body,
        headers: { "Content-Type": "application/x-www-form-urlencoded", Accept: "application/json" },
        signal: AbortSignal.timeout(8000),
      });
    } catch {
      return this.#pause();
    }
    if (response.ok) {
      await this.stored(item);
      return 0;
    }
    if (!FINAL.has(response.status)) return this.#pause(Number(response.headers.get("Retry-After")));
    const problem = await response.json().catch(() => ({}));
    await this.refused(item, { status: response.status, ...problem });
    return 0;
  }

  #pause(retryAfterS = 0) {
    const backOffMs = Math.min(LONGEST_WAIT_MS, 500 * 2 ** this.tries);
    return Math.max(retryAfterS * 1000, backOffMs) * (0.7 + 0.6 * Math.random());
  }

  #read() {
    try {
      return JSON.parse(localStorage.getItem(this.key)) ?? [];
    } catch {
      return [];
    }
  }

  #write() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.items));
    } catch {
      // A browser that keeps nothing still sends while the page lives.
    }
  }
}
