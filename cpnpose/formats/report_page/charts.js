// Charts over time: drawn once, then only the line of the current moment moves.
function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function fitCanvas(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 800;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [context, width, height];
}

const MARGIN = { left: 52, right: 12, top: 8, bottom: 22 };

class TimeChart {
  // draw(context, x, box): x(seconds) gives pixels, box is {left, right, top, bottom}.
  constructor(canvas, data, height, draw, onSeek) {
    Object.assign(this, { canvas, data, height, draw });
    canvas.addEventListener("click", (event) => onSeek(this.secondsAt(event.offsetX)));
    this.render();
  }

  span() {
    return Math.max(this.data.end - this.data.start, 1e-3);
  }

  secondsAt(pixel) {
    const width = this.canvas.clientWidth - MARGIN.left - MARGIN.right;
    const share = Math.min(Math.max((pixel - MARGIN.left) / width, 0), 1);
    return this.data.start + share * this.span();
  }

  render() {
    const [context, width, height] = fitCanvas(this.canvas, this.height());
    this.context = context;
    this.box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    this.x = (seconds) => this.box.left + ((seconds - this.data.start) / this.span()) * (this.box.right - this.box.left);
    context.clearRect(0, 0, width, height);
    context.font = "12px system-ui, sans-serif";
    this.drawTimeAxis();
    this.draw(context, this.x, this.box);
    this.still = document.createElement("canvas");
    this.still.width = this.canvas.width;
    this.still.height = this.canvas.height;
    this.still.getContext("2d").drawImage(this.canvas, 0, 0);
  }

  drawTimeAxis() {
    const { context, box } = this;
    const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000];
    const most = Math.max(2, (box.right - box.left) / 80);
    const step = steps.find((value) => this.span() / value <= most) || 36000;
    context.strokeStyle = cssColour("--line");
    context.fillStyle = cssColour("--soft");
    context.textAlign = "center";
    for (let tick = Math.ceil(this.data.start / step); tick * step <= this.data.end + 1e-9; tick++) {
      const x = this.x(tick * step);
      context.beginPath();
      context.moveTo(x, box.top);
      context.lineTo(x, box.bottom);
      context.stroke();
      context.fillText(secondsText(tick * step), x, box.bottom + 15);
    }
  }

  cursor(seconds) {
    const { context, canvas, box } = this;
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.still, 0, 0);
    context.restore();
    context.strokeStyle = cssColour("--fore");
    context.beginPath();
    context.moveTo(this.x(seconds), box.top);
    context.lineTo(this.x(seconds), box.bottom);
    context.stroke();
  }
}

function drawLines(context, x, box, data, series, low, high, ticks, threshold) {
  const y = (value) => box.bottom - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (box.bottom - box.top);
  context.textAlign = "right";
  for (const tick of ticks) {
    context.strokeStyle = cssColour("--line");
    context.beginPath();
    context.moveTo(box.left, y(tick));
    context.lineTo(box.right, y(tick));
    context.stroke();
    context.fillStyle = cssColour("--soft");
    context.fillText(String(tick), box.left - 6, y(tick) + 4);
  }
  if (threshold !== undefined) {
    context.strokeStyle = cssColour("--soft");
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(box.left, y(threshold));
    context.lineTo(box.right, y(threshold));
    context.stroke();
    context.setLineDash([]);
  }
  const times = data.columns.time;
  for (const { id, points } of series) {
    context.strokeStyle = context.fillStyle = colourOf(id);
    context.lineWidth = 1.5;
    context.beginPath();
    let before = -2;
    for (const [frame, value] of points) {
      if (Number.isNaN(value)) { before = -2; continue; }
      const [px, py] = [x(times[frame]), y(value)];
      if (frame === before + 1) context.lineTo(px, py);
      else { context.moveTo(px - 0.75, py); context.lineTo(px, py); }
      before = frame;
    }
    context.stroke();
    context.lineWidth = 1;
  }
}

const ROW_HEIGHT = 20;

function drawTimeline(context, x, box, data) {
  data.people.forEach((person, number) => {
    const y = box.top + number * ROW_HEIGHT;
    context.fillStyle = cssColour("--fore");
    context.textAlign = "right";
    context.fillText(`id ${person.id}`, box.left - 6, y + 14);
    context.fillStyle = colourOf(person.id);
    for (const [start, end] of person.visits) {
      context.fillRect(x(start), y + 3, Math.max(x(end) - x(start), 2), ROW_HEIGHT - 6);
    }
  });
  context.fillStyle = cssColour("--fore");
  for (const span of data.breaks) {
    const number = data.people.findIndex((person) => person.id === span.id);
    if (number < 0 || span.kind === "gap") continue;
    const y = box.top + (number + 1) * ROW_HEIGHT - 4;
    context.fillRect(x(span.start), y, Math.max(x(span.end) - x(span.start), 2), 2);
  }
}

function drawTrajectories(canvas, data) {
  const [height, width] = data.size;
  const shown = canvas.clientWidth || 800;
  const [context, w, h] = fitCanvas(canvas, Math.min((shown * height) / width, 560));
  const zoom = Math.min(w / width, h / height);
  const left = (w - width * zoom) / 2;
  context.strokeStyle = cssColour("--line");
  context.strokeRect(left, 0.5, width * zoom, h - 1);
  const last = new Map();
  for (let frame = 0; frame < data.shownFrames; frame++) {
    const [first, end] = rowsOfFrame(data, frame);
    for (let row = first; row < end; row++) {
      const id = data.columns.id[row];
      const box = data.columns.box.subarray(4 * row, 4 * row + 4);
      if (id < 1 || box[0] === MISSING) continue;
      const x = left + ((box[0] + box[2]) / 2 / data.scale) * zoom;
      const y = ((box[1] + box[3]) / 2 / data.scale) * zoom;
      const before = last.get(id);
      context.strokeStyle = context.fillStyle = colourOf(id);
      if (before && data.columns.time[frame] - before[2] <= 0.5) {
        context.beginPath();
        context.moveTo(before[0], before[1]);
        context.lineTo(x, y);
        context.stroke();
      } else {
        context.beginPath();
        context.arc(x, y, 4, 0, 2 * Math.PI);
        context.fill();
        if (!before) context.fillText(`id ${id}`, x + 6, y - 6);
      }
      last.set(id, [x, y, data.columns.time[frame]]);
    }
  }
}
