// Long work in short slices, so that the page never freezes.

const SLICE = 9; // milliseconds of work before the next frame

/** Runs generators one after the other; a new queue replaces what is left of the old one. */
export class Slices {
  constructor(milliseconds = SLICE) {
    this.milliseconds = milliseconds;
    this.queue = [];
    this.waiting = false;
    this.channel = new MessageChannel();
    this.channel.port1.onmessage = () => this.slice();
  }

  /** Replace everything that is still to do. */
  start(generators) {
    this.queue = [...generators];
    this.wake();
  }

  wake() {
    if (this.waiting || !this.queue.length) return;
    this.waiting = true;
    // A frame first, so that what is ready is painted; a message next, so that the frame is not used up.
    let woken = false;
    const next = () => {
      if (woken) return;
      woken = true;
      this.channel.port2.postMessage(0);
    };
    requestAnimationFrame(next);
    setTimeout(next, 60); // A hidden page has no frames.
  }

  slice() {
    this.waiting = false;
    const until = performance.now() + this.milliseconds;
    while (this.queue.length && performance.now() < until) if (this.queue[0].next().done) this.queue.shift();
    this.wake();
  }
}
