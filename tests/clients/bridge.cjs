// Lets a Python test call the real @metriport/api-sdk: one JSON request a line on stdin, one JSON answer a line on
// stdout. Requests: {"id", "method", "args"}; the method is one of the client, of its class, or one of those below.
// Answers: {"id", "value"} or {"id", "error": {"message", "status", "body"}}; undefined comes back as null.
const { createRequire } = require("node:module");
const path = require("node:path");
const readline = require("node:readline");

const [root, apiKey, baseAddress, options] = process.argv.slice(2);
const sdk = createRequire(path.join(root, "package.json"))("@metriport/api-sdk");
const client = new sdk.MetriportMedicalApi(apiKey, { baseAddress, ...JSON.parse(options) });

// What receivers with the first versions of the package do before they verify a signature.
const receiver = { reserialise: body => JSON.stringify(JSON.parse(body)) };

async function answer({ id, method, args }) {
  try {
    const target = [client, sdk.MetriportMedicalApi, receiver].find(each => typeof each[method] === "function");
    const value = await target[method](...args);
    return { id, value: value ?? null };
  } catch (error) {
    return { id, error: { message: error.message, status: error.response?.status, body: error.response?.data } };
  }
}

readline.createInterface({ input: process.stdin }).on("line", async line => {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
});
