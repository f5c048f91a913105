/*
 * Who is connected to this process over NBD. The gateway implements it (services/gateway/layer.ts), the HTTP API shows it,
 * and error messages about attached volumes point to it.
 */

export interface ConnectionView {
  /** Export that the client chose; null while it still negotiates. */
  readonly volume: string | null;
  /** `127.0.0.1:40312`, or `unix:PATH` for a socket file. */
  readonly peer: string;
  readonly requestsInFlight: number;
  /** Reply bytes that the client has not taken yet. */
  readonly unsentBytes: number;
  readonly counters: Readonly<Record<string, number>>;
}

export interface ConnectionRegister {
  /** One view per open connection, in order of arrival. */
  connections(): readonly ConnectionView[];
  /** Sums over all connections since the start, closed ones included. */
  totals(): Readonly<Record<string, number>>;
}
