// The player: skeletons of one frame at a time, in the record's own time.
class Player {
  constructor(canvas, data, onFrame) {
    Object.assign(this, { canvas, data, onFrame });
    this.frame = 0;
    this.speed = 1;
    this.threshold = 0.6;
    this.person = 0;
    this.playing = false;
  }

  resize() {
    const [height, width] = this.data.size;
    const shown = this.canvas.clientWidth || 800;
    [this.context, this.width, this.height] = fitCanvas(this.canvas, Math.min((shown * height) / width, 620));
    this.zoom = Math.min(this.width / width, this.height / height);
    this.left = (this.width - width * this.zoom) / 2;
    this.top = (this.height - height * this.zoom) / 2;
    this.draw();
  }

  show(frame) {
    this.frame = Math.min(Math.max(frame, 0), this.data.shownFrames - 1);
    this.draw();
    this.onFrame(this.frame, this.data.columns.time[this.frame]);
  }

  seconds() {
    return this.data.columns.time[this.frame];
  }

  seek(seconds) {
    this.show(frameAt(this.data, seconds));
    this.restartClock();
  }

  step(by) {
    this.stop();
    this.show(this.frame + by);
  }

  restartClock() {
    this.startedAt = performance.now();
    this.startedFrom = this.seconds();
  }

  play() {
    if (this.frame >= this.data.shownFrames - 1) this.show(0);
    this.playing = true;
    this.restartClock();
    const tick = () => {
      if (!this.playing) return;
      const seconds = this.startedFrom + ((performance.now() - this.startedAt) / 1000) * this.speed;
      const frame = frameAt(this.data, seconds);
      if (frame !== this.frame) this.show(frame);
      if (this.frame >= this.data.shownFrames - 1) this.stop();
      else requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    this.onFrame(this.frame, this.seconds());
  }

  stop() {
    this.playing = false;
    this.onFrame(this.frame, this.seconds());
  }

  draw() {
    const { context, data } = this;
    context.clearRect(0, 0, this.width, this.height);
    context.strokeStyle = "#3a424b";
    context.strokeRect(this.left + 0.5, this.top + 0.5, data.size[1] * this.zoom - 1, data.size[0] * this.zoom - 1);
    const [first, end] = rowsOfFrame(data, this.frame);
    for (let row = first; row < end; row++) {
      if (this.person && data.columns.id[row] !== this.person) continue;
      this.drawPerson(row);
    }
  }

  place(column, index) {
    const x = column[index], y = column[index + 1];
    if (x === MISSING || y === MISSING) return null;
    return [this.left + (x / this.data.scale) * this.zoom, this.top + (y / this.data.scale) * this.zoom];
  }

  drawPerson(row) {
    const { context, data } = this;
    const { xy, score, flags, box, id } = data.columns;
    const points = [];
    for (let k = 0; k < 17; k++) {
      const shown = score[17 * row + k] / 100 >= this.threshold || (flags[17 * row + k] & 1);
      points.push(shown ? this.place(xy, 2 * (17 * row + k)) : null);
    }
    const colour = colourOf(id[row]);
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = 2.5;
    for (const [a, b] of data.skeleton) {
      if (!points[a] || !points[b]) continue;
      context.beginPath();
      context.moveTo(...points[a]);
      context.lineTo(...points[b]);
      context.stroke();
    }
    context.lineWidth = 1.5;
    points.forEach((point, k) => {
      if (!point) return;
      const flag = flags[17 * row + k];
      context.beginPath();
      if (flag & 2) context.rect(point[0] - 4, point[1] - 4, 8, 8);
      else context.arc(point[0], point[1], 3.5, 0, 2 * Math.PI);
      if (flag & 1) context.stroke(); else context.fill();
    });
    const corner = this.place(box, 4 * row), opposite = this.place(box, 4 * row + 2);
    if (!corner || !opposite) return;
    context.globalAlpha = 0.5;
    context.strokeRect(corner[0], corner[1], opposite[0] - corner[0], opposite[1] - corner[1]);
    context.globalAlpha = 1;
    context.font = "13px system-ui, sans-serif";
    context.textAlign = "left";
    context.fillText(id[row] < 1 ? "no id" : `id ${id[row]}`, corner[0] + 3, Math.max(corner[1] - 5, 13));
  }
}
