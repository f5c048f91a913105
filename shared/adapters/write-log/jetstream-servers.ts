/*
 * Whether the NATS servers that hold a stream may hold a log: the version, and `sync_interval: always`, without which they
 * acknowledge up to two minutes of messages that no disk has. Asked through their monitoring addresses or the system account,
 * at each take-over, before anything is written (docs/specs/jetstream-log.md, "Servers").
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { wrongServers } from "./jetstream-errors.ts";

/** How servers are asked: each by its own monitoring address, or all by one connection of the system account. */
export interface ServerSources {
  /** http://host:8222 of each server. */
  readonly monitors?: readonly string[];
  readonly system?: NatsConnection;
}

export interface ServerFacts {
  readonly name: string;
  readonly version: string;
  readonly syncAlways: boolean;
}

/** Where the tests of Varve begin; older ones lack the setting or lost messages. */
const versionMin = { major: 2, minor: 15 };
const answerMs = 2_000;
/** After an answer no other came for so long: all have answered. */
const quietMs = 250;

/** Rejects Invalid unless a majority of the named servers was asked, and every one that was asked is in order. */
export async function checkServers(names: readonly string[], sources: ServerSources): Promise<void> {
  const mistakes = serverMistakes(names, await askServers(sources));
  if (mistakes.length > 0) throw wrongServers(mistakes);
}

/** What speaks against these servers, in words for people. Pure. */
export function serverMistakes(names: readonly string[], found: readonly ServerFacts[]): readonly string[] {
  const holders = found.filter(({ name }) => names.includes(name));
  const mistakes: string[] = [];
  for (const { name, version, syncAlways } of holders) {
    const [major = 0, minor = 0] = version.split(".").map(Number);
    if (major !== versionMin.major || minor < versionMin.minor) {
      mistakes.push(
        `${name} is version ${version}, not ${versionMin.major}.${versionMin.minor} or a later 2.x`,
      );
    }
    if (!syncAlways) {
      mistakes.push(
        `${name} does not sync what it acknowledges: set \`jetstream { sync_interval: always }\``,
      );
    }
  }
  const needed = Math.floor(names.length / 2) + 1;
  if (holders.length < needed) {
    const missing = names.filter((name) => !holders.some((holder) => holder.name === name));
    mistakes.push(
      `the settings of ${missing.join(", ")} could not be asked, ${needed} of ${names.length} are needed: ` +
        "give the monitoring address of every server, or a user of the system account",
    );
  }
  return mistakes;
}

export async function askServers({ monitors, system }: ServerSources): Promise<readonly ServerFacts[]> {
  const asked = (monitors ?? []).map((address) => askMonitor(address));
  const answers = [...(await Promise.all(asked)), ...(system === undefined ? [] : await askSystem(system))];
  return answers.filter((facts) => facts !== null);
}

interface JetStreamFacts {
  readonly config?: { readonly sync_always?: boolean };
}

async function askMonitor(address: string): Promise<ServerFacts | null> {
  try {
    const url = new URL("/varz", address);
    const answer = await fetch(url, { signal: AbortSignal.timeout(answerMs) });
    const said = (await answer.json()) as {
      server_name?: string;
      version?: string;
      jetstream?: JetStreamFacts;
    };
    return factsOf(said.server_name, said.version, said.jetstream);
  } catch {
    // A server that is down can't be asked; whether too many are is judged by the caller.
    return null;
  }
}

async function askSystem(system: NatsConnection): Promise<readonly (ServerFacts | null)[]> {
  const found: (ServerFacts | null)[] = [];
  try {
    const options = { strategy: "stall", maxWait: answerMs, stall: quietMs } as const;
    const subject = "$SYS.REQ.SERVER.PING.JSZ";
    for await (const message of await system.requestMany(subject, '{"config":true}', options)) {
      const { server, data } = message.json<{
        server?: { name?: string; ver?: string };
        data?: JetStreamFacts;
      }>();
      found.push(factsOf(server?.name, server?.ver, data));
    }
  } catch {
    // As above: no answer is no fact.
  }
  return found;
}

function factsOf(
  name: string | undefined,
  version: string | undefined,
  facts: JetStreamFacts | undefined,
): ServerFacts | null {
  if (name === undefined || version === undefined) return null;
  return { name, version, syncAlways: facts?.config?.sync_always === true };
}
