// The search of this site runs in a Worker, which browsers do not start from a file. Where the pages are files, this class stands
// in for it: it runs the same script in a hidden frame.

class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.append(this.frame);
    this.onMessage = (event) => event.source === this.frame.contentWindow && this.deliver(event.data);
    window.addEventListener("message", this.onMessage);
    this.loaded = new Promise((resolve) => (this.frame.onload = resolve));
    this.frame.srcdoc = `<script>
      var postMessage = (data) => parent.postMessage(data, "*");
      var importScripts = (...urls) => Promise.all(urls.map((src) => new Promise((resolve, reject) =>
        document.body.append(Object.assign(document.createElement("script"), { src, onload: resolve, onerror: reject })))));
    </script><script src="${url}"></script>`;
  }

  deliver(data) {
    const event = new MessageEvent("message", { data });
    this.dispatchEvent(event);
    this.onmessage?.(event);
  }

  postMessage(data) {
    this.loaded.then(() => window.postMessage.call(this.frame.contentWindow, data, "*")); // the frame's own is the script's
  }

  terminate() {
    window.removeEventListener("message", this.onMessage);
    this.frame.remove();
  }
}

if (location.protocol === "file:") window.Worker = FrameWorker;
