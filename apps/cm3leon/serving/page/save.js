// Pictures as files.

import { make } from "./element.js";
import { blobOf, urlOf } from "./picture.js";

const NAME = 60;

/**
 * Save a picture as a PNG.
 * @param {{picture: string, seed: number}} drawn
 * @param {string} words What it was drawn for; names the file.
 * @param {{times?: number, sharp?: boolean}} [size] `times` as large; `sharp`: with square pixels.
 */
export async function savePicture({ picture, seed }, words, { times = 1, sharp = true } = {}) {
  const small = blobOf(urlOf(picture));
  const blob = times === 1 ? small : await enlarged(small, times, sharp);
  const url = URL.createObjectURL(blob);
  const size = times === 1 ? "" : `-x${times}`;
  make("a", { href: url, download: `${plain(words)}-${seed}${size}.png` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

async function enlarged(blob, times, sharp) {
  const bitmap = await createImageBitmap(blob);
  const canvas = make("canvas", { width: bitmap.width * times, height: bitmap.height * times });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = !sharp;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function plain(words) {
  const letters = words.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-");
  return [...letters].slice(0, NAME).join("").replace(/^-+|-+$/g, "") || "picture";
}
