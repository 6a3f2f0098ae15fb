// The least that an indexer has to do, as one would write it in an afternoon: fetch ranges of logs one after the other and
// COPY them into one table. Prints what it cost as one line of JSON.
//
//     node floor.mjs RPC MARKET FROM TO DATABASE

import { once } from "node:events";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";

const BLOCKS_AT_ONCE = 100;
const [rpc, market, first, last, database] = process.argv.slice(2);

const hex = (number) => `0x${number.toString(16)}`;

async function logs(fromBlock, toBlock) {
  const params = [{ address: market, fromBlock: hex(fromBlock), toBlock: hex(toBlock) }];
  const response = await fetch(rpc, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_getLogs", params }),
  });
  const answer = await response.json();
  if (!answer.result) throw new Error(`eth_getLogs: ${JSON.stringify(answer.error)}`);
  return answer.result;
}

const row = (log) =>
  [
    Number(log.blockNumber),
    log.blockHash,
    Number(log.logIndex),
    log.transactionHash,
    JSON.stringify(log.topics),
    log.data,
  ].join("\t") + "\n";

const client = new pg.Client({ connectionString: database });
await client.connect();
await client.query(
  "CREATE TABLE logs (block BIGINT, block_hash TEXT, log_index BIGINT, tx TEXT, topics TEXT, data TEXT)",
);

const began = performance.now();
let events = 0;
for (let from = Number(first); from <= Number(last); from += BLOCKS_AT_ONCE) {
  const found = await logs(from, Math.min(from + BLOCKS_AT_ONCE - 1, Number(last)));
  const copy = client.query(copyFrom("COPY logs FROM STDIN"));
  copy.end(found.map(row).join(""));
  await once(copy, "finish");
  events += found.length;
}
const seconds = (performance.now() - began) / 1000;
await client.end();

const { user, system } = process.cpuUsage();
const peak_mib = process.resourceUsage().maxRSS / 1024;
console.log(JSON.stringify({ seconds, cpu_seconds: (user + system) / 1e6, peak_mib, events }));
