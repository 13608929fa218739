
"use strict";
// The two pictures of a pair share its custom properties, so both move together.
let scrolled = -Infinity; // time of the last scroll by wheel, so that scrolling continues when a picture passes below the pointer
for (const pair of document.querySelectorAll(".pair")) {
  let scale = 1, x = 0, y = 0, held = null;

  const show = (newScale, newX, newY) => {
    const changed = newScale !== scale;
    scale = newScale;
    x = Math.min(0, Math.max(1 - scale, newX)); // in widths of a picture
    y = Math.min(0, Math.max(1 - scale, newY));
    pair.style.setProperty("--scale", scale);
    pair.style.setProperty("--x", x);
    pair.style.setProperty("--y", y);
    pair.classList.toggle("zoomed", scale > 1);
    return changed;
  };
  const zoom = (factor, atX, atY) => {
    const to = Math.min(16, Math.max(1, scale * factor));
    return show(to, atX - (atX - x) * to / scale, atY - (atY - y) * to / scale);
  };
  const zoomToBox = (factor) => { // or to the centre, if the box is out of sight
    const box = pair.querySelector(".box")?.style;
    if (!box) return zoom(factor, 0.5, 0.5);
    const atX = x + scale * (parseFloat(box.left) + parseFloat(box.width) / 2) / 100;
    const atY = y + scale * (parseFloat(box.top) + parseFloat(box.height) / 2) / 100;
    const seen = atX >= 0 && atX <= 1 && atY >= 0 && atY <= 1;
    zoom(factor, seen ? atX : 0.5, seen ? atY : 0.5);
  };
  const inPicture = (event) => {
    const view = event.target.closest(".view").getBoundingClientRect();
    return [(event.clientX - view.left) / view.width, (event.clientY - view.top) / view.height];
  };

  for (const view of pair.querySelectorAll(".view")) {
    view.addEventListener("wheel", (event) => {
      if (event.timeStamp - scrolled < 300) return;
      const pixels = event.deltaY * (event.deltaMode === 1 ? 33 : event.deltaMode === 2 ? 400 : 1);
      const changed = zoom(2 ** (-Math.max(-200, Math.min(200, pixels)) / 200), ...inPicture(event));
      if (changed || scale > 1) event.preventDefault();
    }, { passive: false });
    view.addEventListener("dblclick", () => show(1, 0, 0));
    view.addEventListener("pointerdown", (event) => {
      if (scale === 1 || event.button) return;
      held = inPicture(event);
      view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      if (!held) return;
      const now = inPicture(event);
      show(scale, x + now[0] - held[0], y + now[1] - held[1]);
      held = now;
    });
    for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => { held = null; });
    view.addEventListener("dragstart", (event) => event.preventDefault());
  }

  pair.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = 0.1;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key === "+" || event.key === "=") zoomToBox(1.5);
    else if (event.key === "-") zoomToBox(1 / 1.5);
    else if (event.key === "0") show(1, 0, 0);
    else if (scale > 1 && moves[event.key]) show(scale, x + moves[event.key][0], y + moves[event.key][1]);
    else return;
    event.preventDefault();
  });
}
addEventListener("wheel", (event) => { if (!event.defaultPrevented) scrolled = event.timeStamp; }, { passive: true });
document.getElementById("boxes").addEventListener("change", (event) => {
  document.body.classList.toggle("no-boxes", !event.target.checked);
});
