// The service's own API. A key is sent as a header alone, and never stands in an address.

import { askForKey, keptKey } from "./key.js";

export class Problem extends Error {
  constructor(body, status) {
    super(body.detail ?? body.title ?? `the service answered ${status}`);
    this.body = body;
    this.status = status;
  }
}

const AWAY = {
  title: "The service does not answer",
  detail: "Check that it runs, then try again.",
};

export function headersWith(more = {}) {
  const key = keptKey();
  return key ? { ...more, Authorization: `Bearer ${key}` } : { ...more };
}

async function answered(path, options) {
  try {
    return await fetch(path, { ...options, headers: headersWith(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(AWAY, 0);
  }
}

export async function problemOf(answer) {
  try {
    return new Problem(await answer.json(), answer.status);
  } catch {
    return new Problem({ title: `The service answered ${answer.status}` }, answer.status);
  }
}

/** The answer if it is a good one; asks for a key where one is needed. Throws Problem. */
export async function send(path, options = {}) {
  for (;;) {
    const key = keptKey();
    const answer = await answered(path, options);
    if (answer.ok) return answer;
    const problem = await problemOf(answer);
    if (answer.status !== 401 || !(await askForKey(problem, key))) throw problem;
  }
}

export async function get(path, options) {
  return (await send(path, options)).json();
}

export async function post(path, body, headers = {}) {
  const options = { method: "POST", headers };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { ...headers, "Content-Type": "application/json" };
  }
  return (await send(path, options)).json();
}

export const remove = (path) => send(path, { method: "DELETE" });

export function query(path, parameters) {
  const given = Object.entries(parameters).filter(
    ([, value]) => value !== "" && value !== null && value !== undefined,
  );
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** By XHR, because fetch does not tell how far an upload is. Throws Problem. */
export async function upload(path, form, onProgress) {
  for (;;) {
    const key = keptKey();
    const { status, body } = await uploaded(path, form, onProgress);
    if (status >= 200 && status < 300) return body;
    const problem = new Problem(status ? body : AWAY, status);
    if (status !== 401 || !(await askForKey(problem, key))) throw problem;
  }
}

function uploaded(path, form, onProgress) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headersWith()))
      request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    request.onloadend = () =>
      resolve({ status: request.status, body: parsed(request.responseText) });
    request.send(form);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { title: "The service's answer could not be read" };
  }
}

/** Works without a key as any link does, and with one by fetching first. */
export async function download(path, name) {
  const blob = await (await send(path)).blob();
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** For Idempotency-Key; `crypto.randomUUID` is missing where the page does not come over TLS. */
export function token() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}
