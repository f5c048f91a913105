/*
 * `varve discover`: asks this machine's networks by mDNS who serves NBD, and prints who answers. See docs/specs/discover.md.
 */
import { browse } from "#shared/adapters/discovery/multicast.ts";
import { type Announcement, isIpv4 } from "#shared/domain/announcement.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { printJson, printLine, table } from "../output.ts";

const secondsMax = 60;

export async function discover(line: CommandLine): Promise<number> {
  const addresses = line.values.get("interface") ?? null;
  const mistakes = (addresses ?? [])
    .filter((address) => !isIpv4(address))
    .map((address) => `--interface: "${address}" is no IPv4 address`);
  const text = line.values.get("timeout")?.[0] ?? "2";
  const seconds = /^\d{1,2}(\.\d)?$/.test(text) ? Number(text) : 0;
  if (!(seconds > 0 && seconds <= secondsMax)) {
    mistakes.push(`--timeout: "${text}" is not a number of seconds up to ${secondsMax}`);
  }
  if (mistakes.length > 0) throw new UsageError(mistakes, "See: varve help discover.");
  const found = await browse(addresses, seconds * 1000);
  if (line.values.has("json")) printJson(found);
  else printLine(found.length === 0 ? "no gateway answered; they do with --mdns only" : foundTable(found));
  return 0;
}

function foundTable(found: readonly Announcement[]): string {
  return table<Announcement>(
    [
      { title: "GATEWAY", cell: (one) => one.name },
      { title: "ADDRESS", cell: (one) => `${one.address}:${one.port}` },
      { title: "VARVE", cell: (one) => one.version },
      {
        title: "EXPORTS",
        cell: (one) => `${one.exports.join(", ")}${one.more > 0 ? ` and ${one.more} more` : ""}`,
      },
    ],
    found,
  );
}
