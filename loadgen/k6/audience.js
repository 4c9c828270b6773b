// Phones in a room: each joins, polls the state, fetches its screen when that has changed, fills in whatever form is
// open (a quiz, a question to the LLM, a survey) and reads the reply. A closed loop: a phone is a person. The room marks
// them as scripted. A plan has the number of phones in its stages, the room's code, and texts to ask and to write.
//
//   k6 run -e TARGET=http://127.0.0.1:8000 -e ROOM=KWXM -e PEAK=50 -e DURATION=5m loadgen/k6/audience.js
//   k6 run -e TARGET=http://127.0.0.1:8000 -e PLAN=spikes/…/plan.json loadgen/k6/audience.js
//
// Somebody has to lead the room: a presenter, or `crowdspike spike audience`. k6 has a reply only as a whole, so its
// points have no first token: the Locust file of the same name sees it.
import { randomSeed } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import { message, short, target, times } from './lib/completions.js';
import { plan as given, prompt } from './lib/plan.js';
import { began, point, sent, thresholds } from './lib/report.js';
import { scenario, zero } from './lib/schedule.js';

// As static/js/phone.js and static/js/outbox.js have them.
const POLL_MS = 1000;
const SPREAD_MS = 500;
const LONGEST_WAIT_MS = 8000;
const FINAL = [400, 401, 403, 404, 409, 410, 413, 415, 422];
const ANSWER_WITHIN_MS = 1000 * (__ENV.ANSWER_WITHIN_S || 10); // and before the time is up
const READ_TRIES = 3;
const TIMEOUT = '8s';

const plan = __ENV.PLAN ? given : people(given);
const room = `/r/${plan.room}`;
const length_ms = plan.stages.reduce((sum, { for_s }) => sum + for_s, 0) * 1000;
if (!plan.room) throw new Error('say which room: -e ROOM=KWXM');

export const options = { scenarios: { phones: scenario(plan) }, thresholds: thresholds(plan) };

export default async function () {
  const n = exec.vu.idInTest - 1;
  if (exec.scenario.iterationInTest === 0) began(zero(plan));
  randomSeed((plan.seed || 1) * 1e6 + n);
  await new Phone(n, exec.scenario.startTime + length_ms).live();
}

/** `n` is the phone's number from 0; at `until_ms` it looks and sends no more, and reads its replies to their end. */
class Phone {
  constructor(n, until_ms) {
    this.n = n;
    this.until_ms = until_ms;
    this.nobody = new http.CookieJar();
    this.state = { version: -1 };
    this.etag = '';
    this.version = -1;
    this.misses = 0;
    this.filled = new Set();
    this.going = [];
  }

  get goesOn() {
    return Date.now() < this.until_ms;
  }

  async live() {
    while (this.goesOn && !(await this.join())) await this.rest(false);
    await pause(POLL_MS * Math.random());
    while (this.goesOn) await this.rest(await this.poll());
    await Promise.all(this.going);
  }

  /** Until the next poll, longer after each that did not come through. */
  rest(heard) {
    this.misses = heard ? 0 : this.misses + 1;
    return pause(POLL_MS * Math.min(8, 2 ** this.misses) * (0.8 + 0.4 * Math.random()));
  }

  async join() {
    const sent_s = now_s();
    sent(this.n, sent_s, 'join');
    let at_s = sent_s;
    let response = await this.ask('GET', `/j/${plan.room}`, { name: '/j/[code]' });
    if (response.status === 200) {
      at_s = now_s();
      response = await this.ask('POST', `${room}/join`, { body: {} });
    }
    this.tell('join', response, { ...times(response, at_s), sent_s });
    return response.status === 201;
  }

  async poll() {
    const headers = this.etag ? { 'If-None-Match': this.etag } : {};
    const response = await this.timed('poll', 'GET', `${room}/state`, { headers, jar: this.nobody });
    if (response.status === 200) {
      this.etag = response.headers.Etag || '';
      this.state = response.json();
    }
    if (this.state.version > this.version) await this.follow(this.state.version);
    return response.status === 200 || response.status === 304;
  }

  /** Fetches the screen of a new version, and fills in its form a while later. */
  async follow(version) {
    await pause(SPREAD_MS * Math.random());
    const response = await this.see(version);
    if (response.status !== 200) return;
    this.version = version;
    const form = formOf(response.body);
    if (!form || this.filled.has(form.activity)) return;
    this.filled.add(form.activity);
    this.going.push(this.fill(form));
  }

  see(version) {
    return this.timed('screen', 'GET', `${room}/screen?v=${version}`, { name: '/r/[code]/screen' });
  }

  async fill(form) {
    await pause(Math.random() * Math.min(ANSWER_WITHIN_MS, 0.9 * form.left_ms));
    const id = `k6-${this.n}-${Date.now()}`;
    const body = { response_id: id, activity_id: form.activity, ...choices(form, this.n) };
    // The screen may have been ahead of the state: then it is seen again, and filled in, when the state has caught up.
    if (!this.open(form.activity)) this.filled.delete(form.activity);
    for (let tries = 0; this.goesOn && this.open(form.activity); tries++) {
      const response = await this.timed('answer', 'POST', `${room}/responses`, { body });
      if (response.status === 200) {
        const { reply } = response.json();
        if (reply) this.going.push(this.read(reply, now_s()));
        await this.see(this.version);
      }
      if (response.status === 200 || FINAL.includes(response.status)) return;
      const told_ms = 1000 * Number(response.headers['Retry-After'] || 0);
      await pause(Math.max(told_ms, Math.min(LONGEST_WAIT_MS, 500 * 2 ** tries) * (0.7 + 0.6 * Math.random())));
    }
  }

  open(activity) {
    return this.state.activity === activity && this.state.phase === 'open';
  }

  /** The reply to its end, from when the answer was acknowledged; a broken stream is asked for again. */
  async read(path, sent_s) {
    sent(this.n, sent_s, 'reply');
    for (let tries = 1; ; tries++) {
      const at_s = now_s();
      const headers = { Accept: 'text/event-stream' };
      const timeout = `${plan.timeout_s}s`;
      const response = await this.ask('GET', path, { headers, timeout, name: '/r/[code]/replies' });
      const error = unread(response);
      if (!error || tries === READ_TRIES || FINAL.includes(response.status)) {
        point({ n: this.n, kind: 'reply', ...times(response, at_s), sent_s, error });
        return;
      }
      await pause(1000 + 2000 * Math.random());
    }
  }

  async timed(kind, method, path, more) {
    const sent_s = now_s();
    sent(this.n, sent_s, kind);
    const response = await this.ask(method, path, more);
    this.tell(kind, response, times(response, sent_s));
    return response;
  }

  tell(kind, response, fields) {
    point({ n: this.n, kind, ...fields, error: refused(response) });
  }

  ask(method, path, { body, headers = {}, jar, timeout = TIMEOUT, name = path.replace(plan.room, '[code]') }) {
    const json = body && { 'Content-Type': 'application/json', Accept: 'application/json' };
    const sends = { 'X-Load-Source': plan.source, ...json, ...headers };
    const params = { headers: sends, timeout, tags: { name }, ...(jar && { jar }) };
    return http.asyncRequest(method, target + path, body ? JSON.stringify(body) : null, params);
  }
}

// ---- what the pages say

/** The open form on a phone's screen: {activity, left_ms, fields, texts}; null when there is none. `fields` has the
 * values to choose from by name, `texts` the longest text by name. */
function formOf(html) {
  const [, text] = /<form [^>]*data-outbox>([^]*?)<\/form>/.exec(html) || [];
  if (!text) return null;
  const fields = {};
  for (const [, name, value] of text.matchAll(/<(?:input|button)[^>]* name="([^"]+)" value="([^"]*)"/g)) {
    (fields[name] = fields[name] || []).push(unescaped(value));
  }
  const { activity_id, response_id: _, ...choosable } = fields;
  const texts = {};
  for (const [, name, most] of text.matchAll(/<textarea[^>]* name="([^"]+)"[^>]* maxlength="(\d+)"/g)) texts[name] = Number(most);
  const [, now, deadline] = /data-now="(\d+)"[^>]* data-deadline="(\d*)"/.exec(html) || [];
  return { activity: activity_id[0], left_ms: deadline ? deadline - now : Infinity, fields: choosable, texts };
}

/** One value for each field, and the plan's words for each text. */
function choices({ fields, texts }, n) {
  const filled = {};
  for (const [name, values] of Object.entries(fields)) filled[name] = values[Math.floor(Math.random() * values.length)];
  for (const [name, most] of Object.entries(texts)) filled[name] = prompt(n).text.slice(0, most);
  return filled;
}

function unescaped(text) {
  return text.replace(/&(?:#(\d+)|lt|gt|quot|amp);/g, (entity, number) =>
    number ? String.fromCodePoint(number) : { '&lt;': '<', '&gt;': '>', '&quot;': '"', '&amp;': '&' }[entity],
  );
}

/** Why a request was not taken, or ''. An answer that comes too late for its question (409) is no failure: the room has
 * told the phone so, as it should. */
function refused({ status, error, body }) {
  if (status === 0) return short(error);
  return status < 400 || status === 409 ? '' : short(`${status} ${message(body || '')}`.trim());
}

/** Why a reply was not read to its end, or ''. */
function unread(response) {
  if (response.status !== 200) return refused(response) || `${response.status}`;
  const [, done] = /event: done\ndata: (.*)/.exec(response.body || '') || [];
  if (!done) return 'stream ended early';
  return JSON.parse(done).failed ? 'the room got no reply' : '';
}

// ---- small steps

/** The phones of a run without a plan: they join in a fifth of the time, and stay. */
function people(by_hand) {
  const phones = Math.max(...by_hand.stages.map(({ to }) => to));
  const total_s = by_hand.stages.reduce((sum, { for_s }) => sum + for_s, 0);
  const stages = [0.2, 0.8].map((share) => ({ to: phones, for_s: share * total_s }));
  return { ...by_hand, loop: 'closed', start: 0, stages, room: __ENV.ROOM };
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function now_s() {
  return Date.now() / 1000;
}
