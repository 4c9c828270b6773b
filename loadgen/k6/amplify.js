// The room's own questions, each a number of times: COPIES users look for new questions about once a second, and each
// sends every question once, all new ones at the same time. A question that is asked before the end is sent by all of
// them, and so COPIES times. The gateway counts them as amplified, never as the audience's.
//
//   k6 run -e TARGET=http://127.0.0.1:8000 -e ROOM=KWXM -e COPIES=10 -e DURATION=5m -e SOURCE=amplified \
//     -e PRESENTER_TOKEN=… -e API_KEY=… loadgen/k6/amplify.js
//   k6 run -e TARGET=http://127.0.0.1:8000 -e PLAN=spikes/…/plan.json -e PRESENTER_TOKEN=… loadgen/k6/amplify.js
import exec from 'k6/execution';
import http from 'k6/http';
import { completeBeside, message, model, short, target } from './lib/completions.js';
import { plan, prompt } from './lib/plan.js';
import { began, thresholds } from './lib/report.js';
import { GRACE_S, zero } from './lib/schedule.js';

const LOOKS_PER_S = 50; // of all users together
// A web process has what others were asked within less than that.
const LAST_LOOK_MS = 1500;
const TIMEOUT = '8s';

const room = plan.room || __ENV.ROOM;
const copies = plan.copies || Number(__ENV.COPIES || 5);
const token = __ENV.PRESENTER_TOKEN || __ENV.CROWDSPIKE_PRESENTER_TOKEN;
const length_s = plan.stages.reduce((sum, { for_s }) => sum + for_s, 0);
const look_ms = 1000 * Math.max(1, copies / LOOKS_PER_S);
if (!room) throw new Error('say which room: -e ROOM=KWXM');
if (!token) throw new Error('a room tells its questions to its presenter: -e PRESENTER_TOKEN=…');
if (plan.source !== 'amplified') throw new Error('say what it is to the gateway: -e SOURCE=amplified');

export const options = {
  scenarios: {
    copies: {
      executor: 'per-vu-iterations',
      vus: copies,
      iterations: 1,
      maxDuration: `${Math.ceil(length_s + LAST_LOOK_MS / 1000 + look_ms / 1000 + GRACE_S)}s`,
      gracefulStop: '0s',
    },
  },
  thresholds: thresholds({ ...plan, loop: 'closed' }),
};

export function setup() {
  return model();
}

export default async function (model) {
  if (exec.scenario.iterationInTest === 0) began(zero({ loop: 'closed' }));
  const user = exec.vu.idInTest - 1;
  const until_ms = exec.scenario.startTime + length_s * 1000;
  const known = new Set();
  const going = [];
  await pause((look_ms * user) / copies);
  for (let over = false; !over; ) {
    const late = Date.now() >= until_ms + LAST_LOOK_MS;
    const found = await questions();
    for (const { id, question, at_ms } of found || []) {
      if (known.has(id) || at_ms > until_ms) continue;
      const n = known.size * copies + user;
      known.add(id);
      going.push(completeBeside(n, { text: question, max_tokens: prompt(known.size - 1).max_tokens }, model));
    }
    over = late && found;
    if (!over) await pause(look_ms * (0.9 + 0.2 * Math.random()));
  }
  await Promise.all(going);
}

/** What the room has asked until now, null where it does not answer just now. Throws an Error where it never will. */
async function questions() {
  const headers = { Authorization: `Bearer ${token}` };
  const params = { headers, timeout: TIMEOUT, tags: { name: '/api/rooms/[code]/questions' } };
  const response = await http.asyncRequest('GET', `${target}/api/rooms/${room}/questions`, null, params);
  const { status, body } = response;
  if (status === 200) return response.json('questions');
  if ([401, 403, 404].includes(status)) throw new Error(`the questions of room ${room}: ${short(`${status} ${message(body || '')}`)}`);
  return null;
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
