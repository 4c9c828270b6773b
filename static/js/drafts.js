// What somebody is typing survives a reload and a phone that ran out of memory, until it is sent.

export class Drafts {
  constructor(code) {
    this.prefix = `crowdspike-draft-${code}-`;
    document.addEventListener("input", (event) => {
      const form = event.target.closest?.("form[data-outbox]");
      if (form) this.#keep(form);
    });
  }

  /** Puts drafts back into forms that nothing was typed into since they were drawn. */
  restore() {
    for (const form of document.querySelectorAll("form[data-outbox]")) {
      const draft = this.#read(form.elements.activity_id.value);
      for (const control of form.querySelectorAll("textarea, input[type=radio], input[type=checkbox]")) {
        const values = draft[control.name];
        if (!values) continue;
        if (control instanceof HTMLTextAreaElement) {
          if (control.value === control.defaultValue) control.value = values[0];
        } else {
          control.checked = values.includes(control.value);
        }
      }
    }
  }

  forget(activity) {
    try {
      sessionStorage.removeItem(this.prefix + activity);
    } catch {
      // Nothing was kept either.
    }
  }

  #keep(form) {
    const fields = {};
    for (const control of form.querySelectorAll("textarea, input:checked")) {
      (fields[control.name] ??= []).push(control.value);
    }
    try {
      sessionStorage.setItem(this.prefix + form.elements.activity_id.value, JSON.stringify(fields));
    } catch {
      // A browser that keeps nothing loses a draft on reload, no more.
    }
  }

  #read(activity) {
    try {
      return JSON.parse(sessionStorage.getItem(this.prefix + activity)) ?? {};
    } catch {
      return {};
    }
  }
}
