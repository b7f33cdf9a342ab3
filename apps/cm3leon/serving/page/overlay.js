// What is painted, drawn: the paint, the cells that it touches, the grid, the keyboard's cell.

const PAINT = [224, 30, 120, 165];
const INK = [17, 17, 17, 255];
const STRIPE = 16;

let striped = null;

/**
 * Draw the paint over a picture, or a sketch.
 * @param {HTMLCanvasElement} canvas
 * @param {object} what
 * @param {import("./mask.js").Mask} what.mask
 * @param {[number, number]} what.grid Rows and columns.
 * @param {boolean} what.over Whether there is a picture below, of which cells will be redrawn.
 * @param {{row: number, column: number}|null} what.cell The one that the keyboard is at.
 * @param {[{x: number, y: number}, {x: number, y: number}]|null} what.frame A rectangle that is
 *   being drawn, in pixels of the mask.
 */
export function drawPaint(canvas, { mask, grid: [rows, columns], over, cell, frame }) {
  const context = canvas.getContext("2d");
  const side = canvas.width;
  const [high, wide] = [side / rows, side / columns];
  context.clearRect(0, 0, side, side);
  context.imageSmoothingEnabled = false;
  if (over) {
    context.fillStyle = stripes(context);
    mask.cells(rows, columns).forEach((taken, place) => {
      const [x, y] = [(place % columns) * wide, Math.floor(place / columns) * high];
      if (taken) context.fillRect(x, y, wide, high);
    });
  }
  context.drawImage(colours(mask, over ? PAINT : INK), 0, 0, side, side);
  if (over || cell) lines(context, rows, columns);
  if (cell) outline(context, cell.column * wide + 4, cell.row * high + 4, wide - 8, high - 8);
  if (frame) {
    const [{ x, y }, to] = frame;
    const scale = side / mask.side;
    outline(context, x * scale, y * scale, (to.x - x) * scale, (to.y - y) * scale);
  }
}

function colours({ side, bits }, colour) {
  const canvas = document.createElement("canvas");
  canvas.width = side;
  canvas.height = side;
  const pixels = new ImageData(side, side);
  bits.forEach((bit, place) => bit && pixels.data.set(colour, place * 4));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function lines(context, rows, columns) {
  const side = context.canvas.width;
  context.beginPath();
  for (let row = 1; row < rows; row += 1) {
    context.moveTo(0, (row * side) / rows);
    context.lineTo(side, (row * side) / rows);
  }
  for (let column = 1; column < columns; column += 1) {
    context.moveTo((column * side) / columns, 0);
    context.lineTo((column * side) / columns, side);
  }
  context.lineWidth = 1;
  context.strokeStyle = "rgb(128 128 128 / 35%)";
  context.stroke();
}

// In two colours, so that it is seen on all.
function outline(context, x, y, width, height) {
  for (const [colour, line] of [["#fff", 8], ["#111", 4]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(x, y, width, height);
  }
}

function stripes(context) {
  if (striped) return striped;
  const tile = document.createElement("canvas");
  tile.width = STRIPE;
  tile.height = STRIPE;
  const pen = tile.getContext("2d");
  pen.fillStyle = "rgb(20 24 22 / 45%)";
  pen.fillRect(0, 0, STRIPE, STRIPE);
  pen.strokeStyle = "rgb(255 255 255 / 85%)";
  pen.lineWidth = 3;
  for (const shift of [-STRIPE, 0, STRIPE]) {
    pen.moveTo(shift - 2, STRIPE + 2);
    pen.lineTo(shift + STRIPE + 2, -2);
  }
  pen.stroke();
  striped = context.createPattern(tile, "repeat");
  return striped;
}
