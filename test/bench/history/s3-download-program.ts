// The plain AWS client in a process of its own, so that nothing else of the bench slows it down: whole objects by parallel GETs, received
// into memory and thrown away. Reads one JSON line with what to get, prints megabytes a second. Started by s3-download.ts.

import { text } from "node:stream/consumers";
import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import type { Download } from "./s3-download.ts";

const { endpoint, bucket, keys, atOnce, accessKeyId, secretAccessKey } = JSON.parse(
  await text(process.stdin),
) as Download;
const client = new S3Client({
  endpoint,
  region: "us-east-1",
  forcePathStyle: true,
  credentials: { accessKeyId, secretAccessKey },
  requestHandler: { httpAgent: { maxSockets: atOnce, keepAlive: true } },
});
let bytes = 0;
let next = 0;
const worker = async (): Promise<void> => {
  for (let key = keys[next++]; key !== undefined; key = keys[next++]) {
    const answer = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
    bytes += (await answer.Body?.transformToByteArray())?.length ?? 0;
  }
};
const startedAtMs = performance.now();
await Promise.all(Array.from({ length: atOnce }, worker));
console.log(bytes / 1e3 / (performance.now() - startedAtMs));
client.destroy();
