// Server-sent events by fetch, because an EventSource cannot send a key. Comes back after a break,
// with the id of the last event, so that nothing is missed and nothing is told twice.

import { problemOf, headersWith, Problem } from "./api.js";
import { askForKey, keptKey } from "./key.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
const FINAL = new Set(["succeeded", "failed", "cancelled"]);

/** Calls `onEvent({id, name, data})` until the final event; `onState("live" | "waiting", seconds)`. */
export async function follow(path, { signal, onEvent, onState }) {
  let last = null;
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const answer = await opened(path, last, signal);
      if (answer === null) return;
      onState("live", 0);
      for await (const event of parsed(answer.body)) {
        last = event.id ?? last;
        wait = FIRST_WAIT_MS;
        onEvent(event);
        if (FINAL.has(event.name)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (
        error instanceof Problem &&
        error.status >= 400 &&
        error.status < 500 &&
        error.status !== 429
      )
        throw error;
    }
    onState("waiting", wait / 1000);
    await paused(wait, signal);
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

/** null: all has been told. */
async function opened(path, last, signal) {
  for (;;) {
    const key = keptKey();
    const headers = headersWith({
      Accept: "text/event-stream",
      ...(last && { "Last-Event-ID": last }),
    });
    const answer = await fetch(path, { headers, signal, cache: "no-store" });
    if (answer.status === 204) return null;
    if (answer.ok) return answer;
    const problem = await problemOf(answer);
    if (answer.status !== 401 || !(await askForKey(problem, key))) throw problem;
  }
}

async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const event = eventOf(block);
      if (event) yield event;
    }
  }
}

export function eventOf(block) {
  const event = { id: null, name: "message", data: null };
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
    if (name === "id") event.id = value;
    if (name === "event") event.name = value;
    if (name === "data") data.push(value);
  }
  if (!data.length) return null;
  event.data = JSON.parse(data.join("\n"));
  return event;
}

function paused(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
