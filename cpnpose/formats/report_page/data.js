// The record as typed arrays, and small questions about it.
function readData(text) {
  const data = JSON.parse(text);
  const kinds = { Float64Array, Int32Array, Int16Array, Uint8Array };
  for (const [name, column] of Object.entries(data.columns)) {
    const binary = atob(column.data);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    data.columns[name] = new kinds[column.kind](bytes.buffer);
  }
  data.shownFrames = data.columns.time.length;
  return data;
}

const MISSING = -32768;

function rowsOfFrame(data, frame) {
  return [data.columns.first[frame], data.columns.first[frame + 1]];
}

// The last frame that is not later than a time.
function frameAt(data, seconds) {
  const times = data.columns.time;
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= seconds + 1e-9) low = middle; else high = middle - 1;
  }
  return low;
}

function meanScore(data, row) {
  let sum = 0;
  for (let k = 0; k < 17; k++) sum += data.columns.score[17 * row + k];
  return sum / 1700;
}

// One line per id: [{id, points: [[frame, value], ...]}], value(row) may be NaN for a break in the line.
function seriesById(data, value) {
  const lines = new Map();
  for (let frame = 0; frame < data.shownFrames; frame++) {
    const [first, end] = rowsOfFrame(data, frame);
    for (let row = first; row < end; row++) {
      const id = data.columns.id[row];
      if (id < 1) continue;
      if (!lines.has(id)) lines.set(id, []);
      lines.get(id).push([frame, value(row)]);
    }
  }
  return [...lines].map(([id, points]) => ({ id, points })).sort((a, b) => a.id - b.id);
}

function colourOf(id) {
  return id < 1 ? "#9aa5b1" : `hsl(${(id * 137.508 + 70) % 360} 75% 55%)`;
}

function secondsText(seconds) {
  const sign = seconds < 0 ? "-" : "";
  const value = Math.abs(seconds);
  const minutes = Math.floor(value / 60);
  return `${sign}${minutes}:${(value - 60 * minutes).toFixed(2).padStart(5, "0")}`;
}
