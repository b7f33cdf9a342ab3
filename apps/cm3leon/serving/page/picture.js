// Pictures of the user as the run will see them: their centre square, upright, on white, not huge.

const LARGEST_SIDE = 1024;

/** A square picture that is ready to be sent. */
export class Picture {
  /**
   * @param {string} url A data: URL of a PNG.
   * @param {number} side In pixels.
   * @param {{name?: string, words?: string}} [about] What it is called, and what it shows.
   */
  constructor(url, side, { name = "picture", words = "" } = {}) {
    this.url = url;
    this.side = side;
    this.name = name;
    this.words = words;
  }
}

/**
 * Read a picture's file; a photo's rotation is undone, and a huge one is made smaller.
 * @param {Blob} file
 * @param {{size: number, limits: {pixels: number, picture_bytes: number}}} run
 * @param {{name?: string, words?: string}} [about]
 * @returns {Promise<Picture>}
 */
export async function readPicture(file, run, about) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error("This browser cannot read that file as a picture. Try a PNG or a JPEG.");
  }
  const square = Math.min(bitmap.width, bitmap.height);
  // Four times what the run sees leaves it enough to shrink well, and a painted mask its edges.
  const enough = Math.min(Math.max(run.size * 4, 256), LARGEST_SIDE);
  const most = Math.min(enough, Math.sqrt(run.limits.pixels));
  let canvas = cut(bitmap, square);
  bitmap.close();
  let side = Math.min(square, Math.floor(most));
  for (;;) {
    canvas = shrunk(canvas, side);
    const url = canvas.toDataURL("image/png");
    if (bytesOf(url) <= run.limits.picture_bytes || side <= run.size) {
      return new Picture(url, side, about);
    }
    side = Math.max(run.size, side >> 1);
  }
}

/**
 * Take a picture that the service sent.
 * @param {string} base64
 * @param {{size: number, limits: any}} run
 * @param {{name?: string, words?: string}} [about]
 * @returns {Promise<Picture>}
 */
export async function sentPicture(base64, run, about) {
  return readPicture(blobOf(urlOf(base64)), run, about);
}

/**
 * The data: URL of base64 that the service sent.
 * @param {string} base64
 * @returns {string}
 */
export function urlOf(base64) {
  return base64.startsWith("data:") ? base64 : `data:image/png;base64,${base64}`;
}

/**
 * The bytes of a data: URL. `fetch` of one is not allowed by the page's policy.
 * @param {string} url
 * @returns {Blob}
 */
export function blobOf(url) {
  const [head, content] = url.split(",", 2);
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: /^data:([^;]*)/.exec(head)[1] });
}

function bytesOf(url) {
  return ((url.length - url.indexOf(",")) * 3) / 4;
}

function cut(bitmap, square) {
  const canvas = blank(square);
  const left = Math.floor((bitmap.width - square) / 2);
  const top = Math.floor((bitmap.height - square) / 2);
  canvas.getContext("2d").drawImage(bitmap, left, top, square, square, 0, 0, square, square);
  return canvas;
}

// By halves: one big step would skip pixels.
function shrunk(canvas, side) {
  while (canvas.width > side) {
    const next = blank(Math.max(side, Math.ceil(canvas.width / 2)));
    const context = next.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(canvas, 0, 0, next.width, next.width);
    canvas = next;
  }
  return canvas;
}

function blank(side) {
  const canvas = document.createElement("canvas");
  canvas.width = side;
  canvas.height = side;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, side, side);
  return canvas;
}
