// Publishes one job and prints its result as a line of JSON, with nothing of gofer's but its subjects and headers.
// usage: node fetch.mjs NATS_URL JOB_ID PAYLOAD
import { connect } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";

const [url, id, payload] = process.argv.slice(2);
const nc = await connect({ servers: url });
const results = nc.subscribe(`gofer.results.default.${id}`, { max: 1, timeout: 20_000 });
const ack = await jetstream(nc).publish(`gofer.jobs.default.${id}`, payload);
for await (const msg of results) {
  const stored = await (await jetstreamManager(nc)).streams.getMessage("GOFER_RESULTS", { last_by_subj: msg.subject });
  const headers = {};
  for (const [name, values] of msg.headers) headers[name] = values;
  console.log(JSON.stringify({
    stream: ack.stream, subject: msg.subject, headers, body: msg.string(),
    storedBody: stored.string(), storedSubject: stored.subject,
  }));
}
await nc.close();
