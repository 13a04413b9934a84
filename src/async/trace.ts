/** Facts of a span. Never a token, cookie, claim value or query string: a collector keeps what it gets, and shows it to many. */
export type SpanFacts = Readonly<Record<string, string | number | boolean | undefined>>

/** One timed part of a request (OpenTelemetry). */
export type Span = {
  /** W3C Trace Context §3.2: for the next hop, and for the log. */
  readonly traceparent: string
  note(facts: SpanFacts): void
  /** Runs work within it: what that begins is a part of it. */
  run<T>(work: () => T): T
  /** @param error what it failed with; its name and code alone are told. */
  end(name?: string, error?: unknown): void
}

/** Where spans come from. Absent, where nothing is traced. */
export type Trace = {
  /** Begins the span of a request; `traceparent` is that of a trusted proxy. */
  request(traceparent: string | undefined): Span
  /** Runs work, which may be a promise, as a part of the span that is running now. */
  part<T>(name: string, facts: SpanFacts, work: (span: Span) => T): T
  /** Adds to the span that is running now. */
  note(facts: SpanFacts): void
  /** Sends what has not been sent, within a moment: a collector that is away holds up no shutdown. */
  close(): Promise<void>
}
