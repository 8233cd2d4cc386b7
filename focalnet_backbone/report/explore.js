"use strict";
// Everything on this page is drawn from the data in it: maps of 8 bits, packed by zlib and base64.

const scenes = JSON.parse(document.getElementById("data").textContent);
const choice = { stage: 0, block: 0, view: "similarity", x: 0.5, y: 0.5 };
const control = (id) => document.getElementById(id);
const unpacked = new Map();

async function unpack(text) {
  if (!unpacked.has(text)) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    unpacked.set(text, new Uint8Array(await new Response(stream).arrayBuffer()));
  }
  return unpacked.get(text);
}

// Colours that differ in lightness too, for eyes that see few hues (cividis; blue to orange through white).
const SEQUENTIAL = [[0, 32, 76], [0, 59, 111], [66, 78, 107], [99, 97, 111], [127, 117, 117], [158, 139, 113],
  [191, 162, 99], [226, 187, 77], [255, 233, 69]];
const DIVERGING = [[8, 69, 148], [66, 133, 190], [158, 202, 225], [247, 247, 247], [253, 190, 133], [230, 126, 34],
  [150, 70, 5]];

function colour(stops, value) {
  const place = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2), rest = place - first;
  return stops[first].map((low, i) => low + rest * (stops[first + 1][i] - low));
}

const tables = new Map([SEQUENTIAL, DIVERGING].map((stops) =>
  [stops, Array.from({ length: 256 }, (_, i) => colour(stops, i / 255).map(Math.round))]));

const stageOf = (scene) => scene.stages[Math.min(choice.stage, scene.stages.length - 1)];
const blockOf = (stage) => stage.blocks[Math.min(choice.block, stage.blocks.length - 1)];

function placeOn(rows, columns, stride, scene) {
  const clip = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1);
  return [clip((choice.y * scene.height) / stride, rows), clip((choice.x * scene.width) / stride, columns)];
}

// Cosines of one place's vector with all others; the vectors are int8, rows of `channels`.
async function similarity(scene, stage, block) {
  const vectors = new Int8Array((await unpack(block.features)).buffer);
  const [row, column] = placeOn(stage.rows, stage.columns, stage.stride, scene);
  const channels = stage.channels, here = (row * stage.columns + column) * channels;
  const values = new Float32Array(stage.rows * stage.columns);
  const own = vectors.subarray(here, here + channels);
  const length = Math.hypot(...own);
  for (let place = 0, at = 0; place < values.length; place++) {
    let product = 0, square = 0;
    for (let c = 0; c < channels; c++, at++) {
      product += own[c] * vectors[at];
      square += vectors[at] * vectors[at];
    }
    values[place] = square && length ? product / (length * Math.sqrt(square)) : 0;
  }
  return values;
}

function nearestField(scene, stage) {
  const [row, column] = placeOn(stage.rows, stage.columns, stage.stride, scene);
  const far = stage.fields.places.map(([r, c]) => (r - row) ** 2 + (c - column) ** 2);
  return far.indexOf(Math.min(...far));
}

// What the chosen view shows of a scene: a grid of values from 0 to 1 (or of colours), and what they mean.
async function viewOf(scene) {
  const stage = stageOf(scene), block = blockOf(stage);
  const grid = { rows: stage.rows, columns: stage.columns, cell: stage.stride };
  const size = stage.rows * stage.columns;
  if (choice.view === "similarity") {
    const values = await similarity(scene, stage, block);
    return { ...grid, values: values.map((v) => (v + 1) / 2), low: -1, high: 1, stops: DIVERGING, exact: values };
  }
  if (choice.view.startsWith("gate")) {
    const level = Math.min(Number(choice.view.slice(4)), block.gates.count - 1);
    const values = (await unpack(block.gates.data)).subarray(level * size, (level + 1) * size);
    return { ...grid, values: Float32Array.from(values, (v) => v / 255), ...ends(block.gates), stops: DIVERGING };
  }
  if (choice.view === "components") {
    return { ...grid, rgb: await unpack(block.components) };
  }
  if (choice.view === "field") {
    const { rows, columns, data } = stage.fields, index = nearestField(scene, stage);
    const values = (await unpack(data)).subarray(index * rows * columns, (index + 1) * rows * columns);
    const cell = [scene.height / rows, scene.width / columns];
    return { rows, columns, cell, values: Float32Array.from(values, (v) => v / 255), low: 0, high: 1, stops: SEQUENTIAL };
  }
  const map = block[choice.view];
  const values = Float32Array.from(await unpack(map.data), (v) => v / 255);
  return { ...grid, values, ...ends(map), stops: SEQUENTIAL };
}

const ends = ({ low, high }) => ({ low, high });

function paint(canvas, view) {
  const { rows, columns } = view;
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const context = small.getContext("2d"), pixels = context.createImageData(columns, rows);
  const table = tables.get(view.stops), size = rows * columns;
  for (let i = 0; i < size; i++) {
    const rgb = view.rgb ? view.rgb.subarray(3 * i, 3 * i + 3)
      : table[Math.round(Math.min(Math.max(view.values[i], 0), 1) * 255)];
    pixels.data.set([rgb[0], rgb[1], rgb[2], 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  const [cellHeight, cellWidth] = Array.isArray(view.cell) ? view.cell : [view.cell, view.cell];
  const target = canvas.getContext("2d");
  target.imageSmoothingEnabled = false;
  // In the photo's pixels: the last row and column may reach beyond it.
  target.drawImage(small, 0, 0, columns * cellWidth, rows * cellHeight);
}

function mark(canvas, scene, [row, column], reach) {
  const context = canvas.getContext("2d"), stage = stageOf(scene);
  const side = stage.stride, thick = Math.max(2, scene.width / 250);
  for (const [style, width] of [["#000", thick + 2], ["#fff", thick]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.strokeRect(column * side, row * side, side, side);
    if (reach) {
      const long = reach.before + reach.after + 1;
      context.setLineDash([4 * thick, 3 * thick]);
      context.strokeRect(column * side - reach.before, row * side - reach.before, long, long);
      context.setLineDash([]);
    }
  }
}

function describe(scene, view) {
  const stage = stageOf(scene), block = blockOf(stage);
  const [row, column] = placeOn(stage.rows, stage.columns, stage.stride, scene);
  const reach = block.reach.before + block.reach.after + 1;
  const area = reach < 2 * Math.max(scene.width, scene.height) ? `${reach} x ${reach} pixels` : "all of the photo";
  let text = `Row ${row}, column ${column} of ${stage.rows} x ${stage.columns}; kernels reach ${area}.`;
  if (view.values && choice.view !== "field") {
    const at = row * stage.columns + column;
    const value = view.exact ? view.exact[at] : view.low + view.values[at] * (view.high - view.low);
    text += ` Value here: ${value.toFixed(3)}.`;
  }
  if (view.exact) {
    const alike = view.exact.reduce((count, v) => count + (v > 0.9), 0);
    text += ` Alike (above 0.9): ${((100 * alike) / view.exact.length).toFixed(1)} % of the photo.`;
  }
  if (choice.view === "field") {
    const [r, c] = stage.fields.places[nearestField(scene, stage)];
    text += ` Receptive field of row ${r}, column ${c}.`;
  }
  return text;
}

async function draw() {
  const began = performance.now();
  for (const scene of scenes) {
    const view = await viewOf(scene), { photo, map, scale, low, high, readout } = scene.elements;
    for (const canvas of [photo, map]) {
      canvas.getContext("2d").drawImage(scene.image, 0, 0);
    }
    const context = map.getContext("2d");
    context.globalAlpha = Number(control("opacity").value) / 100;
    paint(map, view);
    context.globalAlpha = 1;
    const stage = stageOf(scene), place = placeOn(stage.rows, stage.columns, stage.stride, scene);
    mark(photo, scene, place, blockOf(stage).reach);
    mark(map, scene, choice.view === "field" ? stage.fields.places[nearestField(scene, stage)] : place, null);
    scale.parentElement.style.visibility = view.stops ? "visible" : "hidden";
    if (view.stops) {
      const line = scale.getContext("2d"), table = tables.get(view.stops);
      table.forEach((rgb, i) => { line.fillStyle = `rgb(${rgb})`; line.fillRect(i, 0, 1, 1); });
      low.textContent = view.low.toFixed(2);
      high.textContent = view.high.toFixed(2);
    }
    const option = control("view").selectedOptions[0];
    map.setAttribute("aria-label", `${option ? option.textContent : choice.view} of ${scene.name}, ${scene.network}`);
    readout.textContent = describe(scene, view);
    scene.shown = view;
  }
  document.body.dataset.milliseconds = (performance.now() - began).toFixed(1);
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
}

let pending = Promise.resolve();
function redraw() {
  pending = pending.then(draw);
  return pending;
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
}

function fillControls() {
  const stages = Math.max(...scenes.map((scene) => scene.stages.length));
  choice.stage = Math.min(choice.stage, stages - 1);
  const blocks = Math.max(...scenes.map((scene) => stageOf(scene).blocks.length));
  choice.block = Math.min(choice.block, blocks - 1);
  const levels = Math.max(...scenes.map((scene) => blockOf(stageOf(scene)).gates.count));
  const gates = Array.from({ length: levels }, (_, i) =>
    [`gate${i}`, i === levels - 1 ? "Gate of the global context" : `Gate of focal level ${i + 1}`]);
  const views = [["similarity", "Similarity"], ...gates, ["modulator", "Modulator"], ["norm", "Feature norm"],
    ["components", "Components"], ["field", "Receptive field"]];
  if (!views.some(([name]) => name === choice.view)) choice.view = "similarity";
  fill(control("stage"), Array.from({ length: stages }, (_, i) => [i, String(i + 1)]), choice.stage);
  fill(control("block"), Array.from({ length: blocks }, (_, i) => [i, String(i + 1)]), choice.block);
  fill(control("view"), views, choice.view);
}

function choose(changes) {
  Object.assign(choice, changes);
  fillControls();
  return redraw();
}

function step(select, by) {
  const count = control(select).options.length, at = control(select).selectedIndex;
  const value = control(select).options[(at + by + count) % count].value;
  return choose({ [select]: select === "view" ? value : Number(value) });
}

function move(rows, columns) {
  const scene = scenes[0], stage = stageOf(scene);
  const [row, column] = placeOn(stage.rows, stage.columns, stage.stride, scene);
  const clip = (value, count) => Math.min(Math.max(value, 0), count - 1);
  const y = ((clip(row + rows, stage.rows) + 0.5) * stage.stride) / scene.height;
  const x = ((clip(column + columns, stage.columns) + 0.5) * stage.stride) / scene.width;
  return choose({ x: Math.min(x, 0.9999), y: Math.min(y, 0.9999) });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
  const by = event.shiftKey ? 10 : 1;
  const actions = {
    ArrowUp: () => move(-by, 0), ArrowDown: () => move(by, 0), ArrowLeft: () => move(0, -by), ArrowRight: () => move(0, by),
    "[": () => step("block", -1), "]": () => step("block", 1), v: () => step("view", 1), V: () => step("view", -1),
  };
  const digit = Number(event.key);
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  } else if (digit >= 1 && digit <= control("stage").options.length) {
    choose({ stage: digit - 1, block: 99 });
  }
}

function makeScene(scene) {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const canvas = (label) => {
    const element = make("canvas", { width: scene.width, height: scene.height, tabIndex: 0 });
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", label);
    element.addEventListener("click", (event) => {
      const box = element.getBoundingClientRect();
      const inside = (value) => Math.min(Math.max(value, 0), 0.9999);
      choose({ x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height) });
    });
    return element;
  };
  const photo = canvas(`Photo ${scene.name}, with the chosen place`), map = canvas(scene.name);
  const scale = make("canvas", { width: 256, height: 1 }), low = make("span"), high = make("span");
  scale.setAttribute("aria-hidden", "true");
  const readout = make("p", { className: "readout" });
  readout.setAttribute("aria-live", "polite");
  scene.elements = { photo, map, scale, low, high, readout };
  control("scenes").append(make("section", {}, make("h2", { textContent: `${scene.name} · ${scene.network}` }),
    make("div", { className: "canvases" }, photo, map), make("div", { className: "scale" }, low, scale, high), readout));
  scene.image = new Image();
  scene.image.src = `data:image/jpeg;base64,${scene.photo}`;
  return scene.image.decode();
}

async function start() {
  await Promise.all(scenes.map(makeScene));
  choice.stage = Math.max(...scenes.map((scene) => scene.stages.length)) - 1;
  choice.block = 99;
  for (const [id, read] of [["stage", Number], ["block", Number], ["view", String]]) {
    control(id).addEventListener("change", (event) => choose({ [id]: read(event.target.value) }));
  }
  control("opacity").addEventListener("input", (event) => {
    event.target.setAttribute("aria-valuetext", `${event.target.value} %`);
    redraw();
  });
  document.addEventListener("keydown", onKey);
  await choose({});
}

const ready = start();
