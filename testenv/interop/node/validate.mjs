// Reads lines of [schema, message] and writes for each one what ajv says: "" if the message fits the schema.
// usage: node validate.mjs http://WORKER < LINES
import { createInterface } from "node:readline";
import Ajv from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const ajv = new Ajv({ allErrors: true, strict: true });
addFormats(ajv);
const compiled = {};
for await (const line of createInterface({ input: process.stdin })) {
  const [name, message] = JSON.parse(line);
  compiled[name] ??= ajv.compile(await (await fetch(`${process.argv[2]}/api/v1/schemas/${name}.json`)).json());
  console.log(JSON.stringify(compiled[name](message) ? "" : ajv.errorsText(compiled[name].errors)));
}
