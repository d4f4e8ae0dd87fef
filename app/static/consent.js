// A question before something is changed that is not the page's own.

/** Asks in a dialog. */
export class Consent {
  /** page: consent, the dialog; consent-title, consent-text, consent-yes, consent-no. */
  constructor(page) {
    this.page = page;
    page["consent-yes"].addEventListener("click", () => this.close(true));
    page["consent-no"].addEventListener("click", () => this.close(false));
    // Escape closes the dialog by itself. The event comes late: when it does, the next question may be open.
    page.consent.addEventListener("close", () => page.consent.open || this.answer(false));
  }

  /** Ask {title, text, yes: the words of the button that agrees}. Returns whether the user agrees; Escape does not. */
  ask({ title, text, yes }) {
    const { page } = this;
    page["consent-title"].textContent = title;
    page["consent-text"].textContent = text;
    page["consent-yes"].textContent = yes;
    page.consent.showModal();
    const { promise, resolve } = Promise.withResolvers();
    this.answer = resolve;
    return promise;
  }

  close(isAgreed) {
    this.page.consent.close();
    this.answer(isAgreed);
  }
}
