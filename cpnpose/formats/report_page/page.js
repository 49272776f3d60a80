// The page: tables, controls, and what happens when somebody uses them.
const KIND_NAMES = {
  "gap": "gaps", "jump": "jumps", "low-confidence": "stretches of low confidence", "no-id": "stretches with somebody without an id",
  "filled": "filled gaps", "swapped": "stretches with left and right exchanged back",
};
const BREAK_NAMES = {
  "gap": (b) => `not seen for ${b.worst.toFixed(2)} s`,
  "jump": (b) => `jumps: ${b.worst.toFixed(1)} body sizes per second`,
  "low-confidence": (b) => `low confidence, down to ${b.worst.toFixed(2)}`,
  "no-id": () => "somebody without an id",
  "filled": () => "keypoints filled in over a gap",
  "swapped": () => "left and right exchanged back",
};

function addRow(table, cells, onPick) {
  const row = table.querySelector("tbody").insertRow();
  for (const cell of cells) row.insertCell().textContent = cell;
  row.tabIndex = 0;
  row.addEventListener("click", onPick);
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") onPick(); });
}

function addOption(select, value, text) {
  const option = document.createElement("option");
  option.value = value;
  option.textContent = text;
  select.append(option);
}

function start() {
  const byId = (name) => document.getElementById(name);
  const data = readData(byId("data").textContent);
  byId("title").textContent = data.title;
  const rate = data.fps ? `, ${data.fps.toFixed(2)} fps` : "";
  const thinned = data.every > 1 ? ` The page shows one of every ${data.every} frames.` : "";
  byId("summary").textContent = `${data.frameCount} frames from ${secondsText(data.start)} to ${secondsText(data.end)}` +
    `${rate}, ${data.size[1]} x ${data.size[0]} pixels. ${data.people.length} people with an id, ` +
    `${data.emptyFrames} frames without anybody.${thinned}`;
  byId("record").textContent = JSON.stringify({ generator: data.generator, model: data.model, settings: data.settings }, null, 1);

  const charts = [];
  const seek = (seconds) => player.seek(seconds);
  const player = new Player(byId("player"), data, (frame, seconds) => {
    byId("seek").value = frame;
    byId("clock").textContent = `${secondsText(seconds)}  frame ${data.columns.index[frame]}`;
    byId("play").textContent = player.playing ? "Stop" : "Play";
    for (const chart of charts) chart.cursor(seconds);
  });
  byId("seek").max = data.shownFrames - 1;
  byId("seek").addEventListener("input", (event) => { player.show(Number(event.target.value)); player.restartClock(); });
  byId("play").addEventListener("click", () => (player.playing ? player.stop() : player.play()));
  byId("back").addEventListener("click", () => player.step(-1));
  byId("forward").addEventListener("click", () => player.step(1));
  byId("speed").addEventListener("change", (event) => { player.speed = Number(event.target.value); player.restartClock(); });
  byId("threshold").addEventListener("input", (event) => { player.threshold = Number(event.target.value) || 0; player.draw(); });
  addOption(byId("person"), 0, "everybody");
  for (const person of data.people) addOption(byId("person"), person.id, `id ${person.id}`);
  const chosen = (series) => (player.person ? series.filter((line) => line.id === player.person) : series);
  byId("person").addEventListener("change", (event) => {
    player.person = Number(event.target.value);
    player.draw();
    for (const chart of charts) { chart.render(); chart.cursor(player.seconds()); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, button, tr")) return;
    if (event.key === " ") { event.preventDefault(); byId("play").click(); }
    if (event.key === "ArrowRight") { event.preventDefault(); player.step(1); }
    if (event.key === "ArrowLeft") { event.preventDefault(); player.step(-1); }
  });

  for (const person of data.people) {
    const visits = person.visits;
    addRow(byId("people"), [person.id, secondsText(visits[0][0]), secondsText(visits[visits.length - 1][1]), visits.length,
      person.frames, person.score.toFixed(2)], () => seek(visits[0][0]));
  }
  for (const span of data.breaks) {
    const who = span.id < 1 ? "-" : `id ${span.id}`;
    addRow(byId("breaks"), [secondsText(span.start), secondsText(span.end), who, BREAK_NAMES[span.kind](span), span.frames, "show"],
      () => seek(span.start));
  }
  const counts = Object.entries(data.breakCounts).map(([kind, count]) => `${KIND_NAMES[kind]}: ${count}`).join(", ");
  const total = Object.values(data.breakCounts).reduce((sum, count) => sum + count, 0);
  const cut = total > data.breaks.length ? ` The table shows the first ${data.breaks.length}.` : "";
  byId("break-counts").textContent = total ? `${counts}.${cut}` : "Nothing found.";

  const timelineHeight = () => Math.max(data.people.length, 1) * ROW_HEIGHT + MARGIN.top + MARGIN.bottom;
  charts.push(new TimeChart(byId("timeline"), data, timelineHeight, (c, x, box) => drawTimeline(c, x, box, data), seek));
  const scores = seriesById(data, (row) => meanScore(data, row));
  charts.push(new TimeChart(byId("confidence"), data, () => 180, (c, x, box) =>
    drawLines(c, x, box, data, chosen(scores), 0.4, 1.6, [0.5, 0.75, 1, 1.25, 1.5], data.lowScore), seek));
  data.angles.forEach((name, number) => addOption(byId("angle"), number, name.replace("_", " ")));
  byId("angle").value = data.angles.indexOf("left_knee");
  const angleOf = (number) => seriesById(data, (row) => {
    const value = data.columns.angle[data.angles.length * row + number];
    return value === MISSING ? NaN : value / 100;
  });
  let angles = angleOf(Number(byId("angle").value));
  const angleChart = new TimeChart(byId("angles"), data, () => 220, (c, x, box) => {
    const trunk = data.angles[Number(byId("angle").value)] === "trunk";
    const ticks = trunk ? [-90, -45, 0, 45, 90] : [0, 45, 90, 135, 180];
    drawLines(c, x, box, data, chosen(angles), ticks[0], ticks[4], ticks);
  }, seek);
  charts.push(angleChart);
  byId("angle").addEventListener("change", (event) => {
    angles = angleOf(Number(event.target.value));
    angleChart.render();
    angleChart.cursor(player.seconds());
  });

  const layout = () => {
    drawTrajectories(byId("trajectories"), data);
    for (const chart of charts) chart.render();
    player.resize();
    player.show(player.frame);
  };
  window.addEventListener("resize", layout);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", layout);
  layout();
  const first = data.columns.first;
  player.show(Math.max(first.findIndex((rows, frame) => frame > 0 && rows > 0) - 1, 0)); // not an empty picture
  document.body.dataset.ready = "yes";
}

start();
