"use strict";
(() => {
  const section = document.getElementById("film");
  if (!section) return;
  const find = (id) => document.getElementById(id);
  const { rate, layout, scale, actions, moments, video: data } = JSON.parse(find("moments").textContent);
  const [gameWidth, , heatWidth, heatHeight] = layout, [low, high] = scale;
  const video = find("video"), slider = find("moment"), play = find("play"), speed = find("speed"), now = find("now");
  const opacity = find("opacity");
  const heat = find("heat").getContext("2d", { willReadFrequently: true });
  const [when, score, action] = find("facts").querySelectorAll("dd");
  const rows = find("q").tBodies[0].rows;
  const games = moments.at(-1)[0];
  const position = (q) => (q - low) / (high - low || 1); // as QScale.position in display.py

  const drawHeat = () => {
    heat.drawImage(video, gameWidth, 0, heatWidth, heatHeight, 0, 0, heatWidth, heatHeight);
    const picture = heat.getImageData(0, 0, heatWidth, heatHeight), pixels = picture.data;
    for (let i = 0; i < pixels.length; i += 4) pixels.set([255, 140, 0, pixels[i]], i);
    heat.putImageData(picture, 0, 0);
  };
  const show = (index) => {
    const [game, step, before, taken, best, q] = moments[index];
    slider.value = index;
    when.textContent = games > 1 ? `game ${game}, step ${step}` : `step ${step}`;
    score.textContent = before;
    action.textContent = actions[taken] + (taken === best || best < 0 ? "" : " (not the best)");
    q.forEach((value, i) => {
      const [, number, bar] = rows[i].cells;
      rows[i].className = [i === best ? "best" : "", i === taken ? "taken" : ""].join(" ");
      number.textContent = value === null ? "–" : value.toFixed(3).replace("-", "−");
      const [from, to] = [position(0), position(value ?? 0)].sort((a, b) => a - b);
      bar.firstChild.style.marginLeft = `${100 * from}%`;
      bar.firstChild.style.width = `${100 * (to - from)}%`;
    });
    slider.setAttribute("aria-valuetext", `${when.textContent}, score ${before}, ${action.textContent}`);
    now?.setAttribute("x1", index);
    now?.setAttribute("x2", index);
  };
  const go = (index) => {
    video.pause();
    index = Math.max(0, Math.min(moments.length - 1, index));
    video.currentTime = (index + 0.5) / rate; // the middle of the picture
    show(index);
  };

  const follow = (time) => { // `time` is that of the picture on the screen, which may be from before `go`
    if (!video.seeking) show(Math.min(moments.length - 1, Math.round(time * rate)));
    drawHeat();
  };
  if (video.requestVideoFrameCallback) {
    const next = (_, { mediaTime }) => {
      follow(mediaTime);
      video.requestVideoFrameCallback(next);
    };
    video.requestVideoFrameCallback(next);
  } else { // in older browsers the numbers follow four times a second
    for (const event of ["timeupdate", "seeked"]) {
      video.addEventListener(event, () => follow(Math.floor(video.currentTime * rate) / rate));
    }
  }
  const toggle = () => {
    if (!video.paused) return video.pause();
    if (Number(slider.value) === moments.length - 1) video.currentTime = 0;
    video.play().catch(() => {}); // without VP9 the page says so
  };
  video.addEventListener("play", () => { play.textContent = "Pause"; });
  video.addEventListener("pause", () => { play.textContent = "Play"; });
  video.addEventListener("error", () => { find("no-video").hidden = false; });
  play.addEventListener("click", toggle);
  speed.addEventListener("change", () => { video.playbackRate = Number(speed.value); });
  slider.addEventListener("input", () => go(Number(slider.value)));
  const colour = () => {
    heat.canvas.style.opacity = opacity.value / 100;
    video.style.filter = `brightness(${1 - 0.3 * opacity.value / 100})`;
  };
  opacity.addEventListener("input", colour);
  document.addEventListener("keydown", (event) => {
    const { bottom } = section.getBoundingClientRect();
    const used = event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey;
    if (used || bottom < 0 || event.target.closest("a, button, select, input:not(#moment)")) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (steps) go(Number(slider.value) + steps);
    else if (event.key === " ") toggle();
    else return;
    event.preventDefault();
  });

  for (const [control, value] of [[speed, 1], [opacity, 80]]) control.value = value; // because browsers keep values after a reload
  colour();
  video.src = URL.createObjectURL(new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], { type: "video/webm" }));
  go(0);
})();
