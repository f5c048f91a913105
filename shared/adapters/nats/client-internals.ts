/*
 * What message-transport.ts uses of the NATS client beyond its documented interface. With another version of the client a part may be
 * gone: then that connection does as the client does, slower, and test/nats/message-bus.test.ts says which part it is.
 */

/** Path of a member, and what it has to be. */
export type Internals = Readonly<Record<string, "function" | "object" | "boolean">>;

/** Of a transport whose socket is connected, to receive into memory of our own. */
export const receivingInternals: Internals = {
  yields: "object",
  "yields.push": "function",
  "signal.resolve": "function",
  "socket._handle": "object",
};

/** Of a connection's protocol, to send large messages unjoined. */
export const sendingInternals: Internals = {
  sendCommand: "function",
  connected: "boolean",
  infoReceived: "boolean",
  "outbound.size": "function",
  "outbound.drain": "function",
  "transport.send": "function",
};

/** Those that are not what they have to be, in words. */
export function missingInternals(found: object, wanted: Internals): readonly string[] {
  return Object.entries(wanted).flatMap(([path, kind]) => {
    let value: unknown = found;
    for (const name of path.split(".")) {
      value = value === undefined || value === null ? undefined : (value as Record<string, unknown>)[name];
    }
    const isThere = typeof value === kind && value !== null;
    return isThere ? [] : [`${path} is ${value === null ? "null" : typeof value}, not ${kind}`];
  });
}
