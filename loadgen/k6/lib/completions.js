// Requests to POST /v1/chat/completions, and what their streamed answers say. TARGET is the server, API_KEY its key.
import exec from 'k6/execution';
import http from 'k6/http';
import { plan, prompt } from './plan.js';
import { point, sent } from './report.js';

const ERROR_CHARS = 200;

if (!__ENV.TARGET) throw new Error('say which server: -e TARGET=http://127.0.0.1:8000');
export const target = __ENV.TARGET.replace(/\/+$/, '');
const headers = { 'Content-Type': 'application/json', 'X-Load-Source': plan.source };
if (__ENV.API_KEY) headers.Authorization = `Bearer ${__ENV.API_KEY}`;
const params = { headers, timeout: `${plan.timeout_s}s` };

/** For setup(): the plan's model, or the server's first. Ends the run when the server names none. */
export function model() {
  if (plan.model) return plan.model;
  const response = http.get(`${target}/v1/models`, params);
  const id = response.status === 200 && response.json('data.0.id');
  if (!id) exec.test.abort(`${target}/v1/models names no model: ${response.error || response.status}`);
  return id;
}

/** Sends a prompt as request `n` and reports it, beside whatever else its VU does meanwhile. */
export async function completeBeside(n, asked, model) {
  const at_s = Date.now() / 1000;
  sent(n, at_s);
  const response = await http.asyncRequest('POST', `${target}/v1/chat/completions`, body(asked, model), params);
  point({ n, ...read(response, at_s) });
}

/** Sends the plan's requests of these numbers at once, waits for all, and reports each. */
export function complete(numbers, model, cell) {
  const requests = numbers.map((n) => ['POST', `${target}/v1/chat/completions`, body(prompt(n), model), params]);
  const at_s = Date.now() / 1000;
  numbers.forEach((n) => sent(n, at_s));
  const responses = requests.length === 1 ? [http.request(...requests[0])] : http.batch(requests);
  responses.forEach((response, i) => point({ n: numbers[i], cell, ...read(response, at_s) }));
}

function body({ text, max_tokens }, model) {
  const asked = { model, messages: [{ role: 'user', content: text }], max_tokens };
  if (plan.ignore_eos) asked.ignore_eos = true;
  return JSON.stringify({ ...asked, stream: true, stream_options: { include_usage: true } });
}

function read(response, sent_s) {
  return { ...times(response, sent_s), ...(failed(response) || usage(response.body)) };
}

/** A point's times and status of any request. `sent_s` is when the iteration asked for it, so a new connection counts:
 * k6 has its making in `blocked`. `headers_s` is the status, not the first token: k6 gives no stream as it comes. */
export function times({ status, timings }, sent_s) {
  const { blocked, duration, receiving } = timings; // ms
  return {
    sent_s,
    headers_s: status > 0 ? sent_s + (blocked + duration - receiving) / 1000 : undefined,
    // Without a connection there are no timings.
    ended_s: duration > 0 ? sent_s + (blocked + duration) / 1000 : Date.now() / 1000,
    status,
  };
}

/** Why a request counts as failed: {error} and perhaps its {status}; null when it was answered in full. */
function failed({ status, error, body }) {
  const text = body || '';
  if (status === 0) return { error: short(error) };
  if (status !== 200) return { error: short(`${status} ${message(text)}`.trim()) };
  const at = text.search(/"error": ?[{"]/); // not in a token's text, where quotes are escaped
  if (at >= 0) return failedLate(text, at);
  return /data: ?\[DONE\]\s*$/.test(text.slice(-40)) ? null : { error: 'stream ended early' };
}

/** An error in the stream. Before the first token its code is the status: vLLM may refuse so after a 200. */
function failedLate(text, at) {
  const event = line(text, at);
  const error = short(message(event) || 'error event');
  const { code } = parsed(event).error || {};
  const said = /"(content|text|reasoning|reasoning_content)": ?"[^"]/.test(text.slice(0, at));
  return !said && code >= 400 && code < 600 ? { status: code, error } : { error };
}

function usage(body) {
  const at = body.lastIndexOf('"usage"');
  if (at < 0) return {};
  const { prompt_tokens, completion_tokens } = parsed(line(body, at)).usage || {};
  return { prompt_tokens, completion_tokens };
}

/** The line in which position `at` is. Only that of the usage is parsed: an answer has hundreds of others. */
function line(text, at) {
  const end = text.indexOf('\n', at);
  return text.slice(text.lastIndexOf('\n', at) + 1, end < 0 ? undefined : end);
}

/** The server's words in an error's body or event, as OpenAI, FastAPI and problem+json have them. */
export function message(text) {
  const { error, message, detail, title } = parsed(text);
  const words = (error && error.message) || error || message || detail || title || '';
  return typeof words === 'string' ? words : JSON.stringify(words);
}

function parsed(text) {
  try {
    return JSON.parse(text.replace(/^data:/, '')) || {};
  } catch {
    return {};
  }
}

export function short(text) {
  return text.replace(/\s+/g, ' ').slice(0, ERROR_CHARS);
}
