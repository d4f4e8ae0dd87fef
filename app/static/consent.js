// A question before something is changed that is not the page's own.

/** Asks in a dialog. */
export class Consent {
  /** page: consent, the dialog; consent-title, consent-text, consent-yes, consent-no. */
  constructor(page) {
    this.page = page;
    page["consent-yes"].addEventListener("click", () => page.consent.close("yes"));
    page["consent-no"].addEventListener("click", () => page.consent.close("no"));
  }

  /** Ask {title, text, yes: the words of the button that agrees}. Returns whether the user agrees; Escape does not. */
  ask({ title, text, yes }) {
    const { page } = this;
    page["consent-title"].textContent = title;
    page["consent-text"].textContent = text;
    page["consent-yes"].textContent = yes;
    page.consent.returnValue = "";
    page.consent.showModal();
    const { promise, resolve } = Promise.withResolvers();
    page.consent.addEventListener("close", () => resolve(page.consent.returnValue === "yes"), { once: true });
    return promise;
  }
}
