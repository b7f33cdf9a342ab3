// Seed, candidates, how ids are drawn. Fields start with the run's own values; others are sent.

import { at } from "./element.js";

const FIELDS = [...document.querySelectorAll("#settings [data-setting]")];
const CONTRASTIVE = ["cd-k", "mixed"];
const SEEDS = 1_000_000;

let own = {};
let wanted = [];

/**
 * Fill the fields with the run's own values.
 * @param {any} run What /api/run says.
 * @param {() => void} changed
 */
export function startSettings(run, changed) {
  own = run.defaults;
  for (const name of run.samplers) input("sampler").append(new Option(name, name));
  input("candidates").max = run.limits.candidates;
  input("retrieve").max = run.limits.documents;
  fillSettings({});
  at("settings").addEventListener("input", () => {
    showContrastive();
    changed();
  });
  at("die").addEventListener("click", () => {
    input("seed").value = rolled();
    changed();
  });
  at("settings-reset").addEventListener("click", () => {
    fillSettings({});
    changed();
  });
}

/**
 * Show the settings that a task has.
 * @param {string[]} names
 */
export function showSettings(names) {
  wanted = names;
  for (const field of FIELDS) field.hidden = !names.includes(field.dataset.setting);
  at("settings").hidden = names.length === 0;
  at("more").hidden = !FIELDS.some((field) => !field.hidden && at("more").contains(field));
  showContrastive();
}

/**
 * The settings that differ from the run's own; the seed is rolled where the field is empty.
 * @returns {Record<string, string|number>}
 */
export function readSettings() {
  const settings = {};
  for (const name of wanted) {
    const { value, type } = input(name);
    const differs = value !== "" && value !== String(own[name] ?? "");
    if (name === "seed") {
      settings.seed = value === "" ? rolled() : Number(value);
    } else if (name === "candidates") {
      settings.candidates = Number(value || own.candidates);
    } else if (differs && !fieldOf(name).hidden) {
      settings[name] = type === "number" ? Number(value) : value;
    }
  }
  return settings;
}

/**
 * Fill the fields; those that are not named get the run's own values.
 * @param {Record<string, string|number>} settings
 */
export function fillSettings(settings) {
  for (const { dataset } of FIELDS) {
    const name = dataset.setting;
    input(name).value = settings[name] ?? own[name] ?? "";
  }
  const folded = FIELDS.filter((field) => at("more").contains(field));
  if (folded.some(({ dataset }) => settings[dataset.setting] !== undefined)) at("more").open = true;
  showContrastive();
}

/**
 * What is wrong with the settings.
 * @returns {{field: HTMLElement, words: string}|null}
 */
export function wrongSetting() {
  for (const name of wanted) {
    const field = input(name);
    const { badInput, rangeUnderflow, rangeOverflow, patternMismatch, stepMismatch } =
      field.validity;
    // The step of a decimal is only how far its arrows go.
    const uneven = stepMismatch && field.inputMode === "numeric";
    const wrong = badInput || rangeUnderflow || rangeOverflow || patternMismatch || uneven;
    if (fieldOf(name).hidden || !wrong) continue;
    if (at("more").contains(field)) at("more").open = true;
    const label = fieldOf(name).querySelector("span, label").textContent;
    const most = field.max === "" ? "" : ` to ${field.max}`;
    const range = name === "seed" ? "digits alone" : `a number from ${field.min}${most}`;
    return { field, words: `${label}: wanted ${range}.` };
  }
  return null;
}

function showContrastive() {
  const on = CONTRASTIVE.includes(input("sampler").value);
  for (const name of ["cd_k", "cd_alpha"]) fieldOf(name).hidden = !(on && wanted.includes(name));
}

function rolled() {
  return Math.floor(Math.random() * SEEDS);
}

function fieldOf(name) {
  return FIELDS.find((field) => field.dataset.setting === name);
}

function input(name) {
  return fieldOf(name).querySelector("input, select");
}
