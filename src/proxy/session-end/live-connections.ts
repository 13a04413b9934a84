import type { BffSession } from '../../session/bff-session.ts'

/** Why we end a connection: its session is over, or this process is. */
export type EndReason = 'session_over' | 'shutdown'

/** Connections that outlast a request and must end with their session. */
export type LiveConnections = {
  /** Notes a connection, of a session or of an anonymous client; `end` ends it. Returns what forgets it again. */
  add(
    session: BffSession['hash'] | undefined,
    end: (reason: EndReason) => void,
    anonymousClient?: string,
  ): () => void
  /** Whether any connection of the session is open. */
  hasSession(session: BffSession['hash']): boolean
  /** How many connections of the session are open. */
  countOf(session: BffSession['hash']): number
  /** How many connections of an anonymous client are open. */
  countOfClient(client: string): number
  /** Every session that has a connection open. */
  sessions(): BffSession['hash'][]
  /** Ends every connection of a session that ended. */
  endSession(session: BffSession['hash']): void
  /** Ends everything, at shutdown. */
  endAll(): void
  /** How many are open. */
  count(): number
}

/** Makes an empty register; it holds nothing of a session whose connections have all closed. */
export function createLiveConnections(): LiveConnections {
  const bySession = new Map<BffSession['hash'] | undefined, Set<(reason: EndReason) => void>>()
  const ofClient = new Map<string, number>()

  function countClient(client: string | undefined, change: 1 | -1): void {
    if (client === undefined) return
    const open = (ofClient.get(client) ?? 0) + change
    if (open > 0) ofClient.set(client, open)
    else ofClient.delete(client)
  }

  function add(
    session: BffSession['hash'] | undefined,
    end: (reason: EndReason) => void,
    anonymousClient?: string,
  ): () => void {
    const open = bySession.get(session) ?? new Set()
    bySession.set(session, open.add(end))
    countClient(anonymousClient, 1)
    return function forget() {
      if (!open.delete(end)) return
      countClient(anonymousClient, -1)
      if (open.size === 0 && bySession.get(session) === open) bySession.delete(session)
    }
  }

  function endSession(session: BffSession['hash']): void {
    for (const end of [...(bySession.get(session) ?? [])]) end('session_over')
  }

  function endAll(): void {
    for (const open of [...bySession.values()]) for (const end of [...open]) end('shutdown')
  }

  function count(): number {
    let open = 0
    for (const ends of bySession.values()) open += ends.size
    return open
  }
  return {
    add,
    hasSession: (session) => bySession.has(session),
    countOf: (session) => bySession.get(session)?.size ?? 0,
    countOfClient: (client) => ofClient.get(client) ?? 0,
    sessions: () => [...bySession.keys()].filter((session) => session !== undefined),
    endSession,
    endAll,
    count,
  }
}
