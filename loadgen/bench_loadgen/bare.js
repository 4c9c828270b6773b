// The least that k6 can do: users who post the same bytes again and again. No plan, no report of a request.
import http from 'k6/http';

const params = { headers: { 'Content-Type': 'application/json' } };

export const options = {
  scenarios: {
    users: { executor: 'constant-vus', vus: Number(__ENV.USERS), duration: __ENV.DURATION, gracefulStop: '0s' },
  },
};

export default function () {
  http.post(`${__ENV.TARGET}/v1/chat/completions`, __ENV.BODY, params);
}
