"use strict";
(() => {
  const section = document.getElementById("film");
  if (!section) return;
  const find = (id) => document.getElementById(id);
  const { columns, width, height, actions, moments } = JSON.parse(find("moments").textContent);
  const slider = find("moment"), opacity = find("opacity"), play = find("play"), now = find("now");
  const screen = find("screen").getContext("2d");
  const layer = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  for (const { canvas } of [screen, layer]) [canvas.width, canvas.height] = [width, height];
  const [when, score, action] = find("facts").querySelectorAll("dd");
  const rows = find("q").tBodies[0].rows;
  const games = moments.at(-1)[0];
  const finite = moments.flatMap((moment) => moment[4]).filter((q) => q !== null);
  const low = Math.min(...finite, 0), high = Math.max(...finite, 0);

  const drawPicture = (index) => {
    const x = index % columns * width, y = Math.floor(index / columns) * height;
    const tile = [x, y, width, height, 0, 0, width, height];
    screen.globalAlpha = 1;
    screen.drawImage(find("screens"), ...tile);
    layer.drawImage(find("heat"), ...tile);
    const heat = layer.getImageData(0, 0, width, height);
    for (let i = 0; i < heat.data.length; i += 4) heat.data.set([255, 110, 0, heat.data[i]], i);
    layer.putImageData(heat, 0, 0);
    screen.globalAlpha = opacity.value / 100;
    screen.drawImage(layer.canvas, 0, 0);
  };
  const show = () => {
    const [game, step, before, taken, q] = moments[slider.value];
    const best = q.indexOf(Math.max(...q.filter((value) => value !== null)));
    when.textContent = games > 1 ? `game ${game}, step ${step}` : `step ${step}`;
    score.textContent = before;
    action.textContent = actions[taken] + (taken === best ? "" : " (exploring)");
    q.forEach((value, i) => {
      const [, number, bar] = rows[i].cells;
      rows[i].className = [i === best ? "best" : "", i === taken ? "taken" : ""].join(" ");
      number.textContent = value === null ? "–" : value.toPrecision(3);
      const from = (Math.min(value, 0) - low) / (high - low || 1), to = (Math.max(value, 0) - low) / (high - low || 1);
      bar.firstChild.style.marginLeft = `${100 * from}%`;
      bar.firstChild.style.width = `${100 * (to - from)}%`;
    });
    slider.setAttribute("aria-valuetext", `${when.textContent}, score ${before}, ${action.textContent}`);
    screen.canvas.setAttribute("aria-label", `The game at ${when.textContent}`);
    now?.setAttribute("x1", slider.value);
    now?.setAttribute("x2", slider.value);
    drawPicture(Number(slider.value));
  };

  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = null;
  const stop = () => {
    clearTimeout(timer);
    timer = null;
    play.textContent = "Play";
  };
  const next = () => { // one picture a second for users who prefer reduced motion
    slider.value = Number(slider.value) + 1;
    show();
    if (slider.value === slider.max) stop();
    else timer = setTimeout(next, calm.matches ? 1000 : 100);
  };
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (slider.value === slider.max) slider.value = -1;
    play.textContent = "Pause";
    next();
  });
  slider.addEventListener("input", () => {
    stop();
    show();
  });
  opacity.addEventListener("input", () => drawPicture(Number(slider.value)));
  slider.value = 0; // because browsers keep the value after a reload
  Promise.all([find("screens").decode(), find("heat").decode()]).then(show);
})();
