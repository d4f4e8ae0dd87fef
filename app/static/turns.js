/** Whose turn it is: whatever comes in for an earlier turn, after something else was asked for, is dropped. */
export class Turns {
  constructor() {
    this.latest = 0;
  }

  /** Begin a turn, which ends all others. Returns its number. */
  begin() {
    return ++this.latest;
  }

  isOver(turn) {
    return turn !== this.latest;
  }
}
