// Recordings come from a file that is chosen, or dropped anywhere on the page.

/** Call `open` with each file that the user chooses or drops. */
export function watchFiles(page, open) {
  const chooser = page["recording-file"];
  page["open-recording"].addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    const [file] = chooser.files;
    chooser.value = ""; // so that the same file can be chosen again
    if (file) open(file);
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    open(event.dataTransfer.files[0]);
  });
}

function hasFiles({ dataTransfer }) {
  return dataTransfer?.types.includes("Files");
}
