import { PATHS } from './api.ts'

export type Scope = { after(cleanUp: () => unknown): void }

/** Head fields of a request by name. */
export type Fields = Readonly<Record<string, string>>

/** A proxy that is measured. */
export type Contender = {
  readonly name: string
  /** Its process; descendants count with it. */
  readonly pid: number
  readonly port: number
  /** Head fields that are its alone: `host`, and the cookie of a session that was really signed in. */
  readonly fields: Fields
  /** It knows no sessions, and passes every request. */
  readonly isOpen?: true
}

/** A process that has just started. */
export type Fresh = Pick<Contender, 'pid' | 'port'> & { stop(): Promise<unknown> }

/** What is asked of a contender. */
export type Ask = keyof typeof ASKS

const ASKS = {
  small: { method: 'GET', path: PATHS.small, body: '' },
  large: { method: 'GET', path: PATHS.large, body: '' },
  upload: { method: 'POST', path: PATHS.upload, body: 'x'.repeat(16 * 1024) },
} as const

/** A whole request as it goes over the wire: what Chromium sends for a script's request. */
export function requestText(ask: Ask, { host = '', cookie, ...more }: Fields, path?: string): string {
  const { method, body } = ASKS[ask]
  const fields = {
    Host: host,
    Connection: 'keep-alive',
    ...(body ? { 'Content-Length': String(body.length) } : {}),
    'sec-ch-ua-platform': '"Linux"',
    'User-Agent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36',
    'sec-ch-ua': '"Chromium";v="140", "Not=A?Brand";v="24"',
    'X-CSRF': '1',
    'sec-ch-ua-mobile': '?0',
    ...(body ? { 'Content-Type': 'application/octet-stream', Origin: `http://${host}` } : {}),
    Accept: '*/*',
    'Sec-Fetch-Site': 'same-origin',
    'Sec-Fetch-Mode': 'cors',
    'Sec-Fetch-Dest': 'empty',
    Referer: `http://${host}/`,
    'Accept-Encoding': 'gzip, deflate, br, zstd',
    'Accept-Language': 'en-GB,en;q=0.9',
    ...(cookie ? { Cookie: cookie } : {}),
    ...more,
  }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path ?? ASKS[ask].path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`
}
