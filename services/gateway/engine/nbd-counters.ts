/*
 * Plain counters of the NBD gateway, for one connection and for a whole server. Bumped by nbd-transmission.ts and
 * nbd-connection.ts, read by the API and the metrics page; nothing here has an effect.
 */

export class NbdCounters {
  readRequests = 0;
  writeRequests = 0;
  flushRequests = 0;
  trimRequests = 0;
  zeroRequests = 0;
  otherRequests = 0;
  /** Requests that were answered with an error. */
  failedRequests = 0;
  readBytes = 0;
  writtenBytes = 0;
}

export class NbdServerCounters extends NbdCounters {
  connectionsAccepted = 0;
  /** Refused because too many were open. */
  connectionsRefused = 0;
  /** Closed by the server because the client broke the protocol or stalled. */
  connectionsBroken = 0;
}
