import type { Rule } from '../rules/rule.ts'
import { RATE_LIMIT, SIZE, TIMEOUT } from '../rules/units.ts'
import type { FieldKit } from './schema.ts'

const SMALLEST_HEAD = 4_096

/** A browser's cookies and a sign-in's answer must fit. */
const HEADER_SIZE: Rule<number> = {
  must: 'must be a size with its unit (B, KB, KiB, MB, MiB, GB or GiB), at least 4KiB',
  example: '32KiB',
  parse: (text) => {
    const size = SIZE.parse(text)
    return size !== undefined && size >= SMALLEST_HEAD ? size : undefined
  },
}

/** `limits:` of the public listener. */
export function limitFields(kit: FieldKit) {
  return kit
    .section({
      connections: kit
        .wholeNumber({ min: 1, max: 1_000_000, example: 10_000 }, 'Most open connections of clients.')
        .prefault(10_000),
      connectionsPerClient: kit
        .wholeNumber(
          { min: 1, max: 1_000_000, example: 1_000 },
          'Most open connections of one address, WebSockets included; those in trustProxy have no limit.',
        )
        .prefault(1_000),
      headerSize: kit
        .text(HEADER_SIZE, 'Largest head of a request: request line and fields.')
        .prefault('32KiB'),
      headerCount: kit
        .wholeNumber({ min: 10, max: 2_000, example: 100 }, 'Most field lines in the head of a request.')
        .prefault(100),
      urlLength: kit.text(SIZE, 'Longest path and query.').prefault('16KiB'),
      headerTimeout: kit.text(TIMEOUT, 'Until the head of a request is whole.').prefault('30s'),
      bodyRate: kit
        .wholeNumber(
          { min: 0, max: 1_000_000, example: 240 },
          'Bytes per second that a request body must come with, on average, after headerTimeout; 0 for none.',
        )
        .prefault(240),
      keepAlive: kit
        .text(TIMEOUT, "How long a connection may idle; longer than the load balancer's own limit.")
        .prefault('75s'),
      webSocketsPerSession: kit
        .wholeNumber({ min: 1, max: 10_000, example: 50 }, 'Most WebSockets of one session.')
        .prefault(50),
      webSocketsPerClient: kit
        .wholeNumber(
          { min: 1, max: 1_000_000, example: 200 },
          'Most WebSockets without a session of one client address.',
        )
        .prefault(200),
    })
    .prefault({})
    .describe('What the public listener takes, for each replica.')
}

/** `rateLimits:` on our own endpoints. */
export function rateLimitFields(kit: FieldKit) {
  const limit = (what: string) =>
    kit.text(RATE_LIMIT, `${what} of one client address, over all replicas; off for none.`).prefault('600/1m')
  return kit
    .section({ login: limit('Logins begun'), callback: limit('Logins finished'), logout: limit('Logouts') })
    .prefault({})
    .describe('How often one client address may call, as REQUESTS/DURATION.')
}
