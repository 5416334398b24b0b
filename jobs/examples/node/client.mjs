// A client of gofer in Node. It submits jobs with headers and a session, waits for their results, reads a large body from the
// object store, follows results with a durable consumer, and replays a dead letter.
// usage: npm ci && node client.mjs nats://127.0.0.1:4222 http://SITE
// The site needs the paths /ok, /bytes/600000 with so many bytes, and /status/503 with that status.
import { connect, headers, nuid } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";

const [server, site] = process.argv.slice(2);
const nc = await connect({ servers: server });
const js = jetstream(nc), manager = await jetstreamManager(nc);

// fetch publishes a job and waits for its result. It subscribes first, because the server sends a stored result once.
async function fetch(job, id = nuid.next(), options = {}) {
  const results = nc.subscribe(`gofer.results.default.${id}`, { max: 1, timeout: 180_000 });
  await js.publish(`gofer.jobs.default.${id}`, JSON.stringify(job), options); // returns when the job is stored
  for await (const result of results) return result;
}

const page = await fetch({
  url: `${site}/ok`, headers: { "Accept-Language": "en" },
  proxy: { session: "cart-7" }, // all jobs of a session go through one proxy while it works
});
console.log("page:", page.headers.get("Gofer-Outcome"), page.headers.get("Gofer-Status"));

const large = await fetch({ url: `${site}/bytes/600000` });
const [bucket, ...name] = large.headers.get("Gofer-Object").split("/"); // set because the body is over 512 KiB
const store = await new Objm(nc).open(bucket);
console.log("large:", (await store.getBlob(name.join("/"))).length); // checks the digest

const reader = await js.consumers.get("GOFER_RESULTS", "reader"); // a durable that gofer setup prepares
for await (const result of await reader.consume({ max_messages: 1 })) {
  await result.ackAck(); // the next reader begins after this result
  if (result.subject === large.subject) {
    console.log("followed:", result.headers.get("Gofer-Outcome"));
    break;
  }
}

const failed = await fetch({ url: `${site}/status/503`, retry: { max_attempts: 1 } });
const dead = failed.subject.replace("results", "dead");
let letter = null;
while (!(letter = await manager.streams.getMessage("GOFER_DEAD", { last_by_subj: dead }))); // stored after the result
const hdrs = headers();
hdrs.set("Gofer-Replay-Of", failed.headers.get("Gofer-Job-Id"));
const again = await fetch(letter.json(), `replay-${letter.seq}`, { headers: hdrs });
await manager.streams.deleteMessage("GOFER_DEAD", letter.seq);
console.log("replayed:", again.headers.get("Gofer-Outcome"), again.headers.get("Gofer-Error"));
await nc.close();
