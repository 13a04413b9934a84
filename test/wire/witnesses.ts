import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { foldFieldName } from '../../src/proxy/headers/dropped.ts'
import { skipWithout, startApache, startNginx } from './foreign-servers.ts'

/** Where clean-up is registered: a test's own context. */
type Scope = { after(cleanUp: () => unknown): void }

/** One request as one program understood it. */
export type Understood = {
  readonly method: string
  /** As it stood in the request line. */
  readonly target: string
  /** What the program looks up: without query, decoded and, where it does that, with dot segments resolved. */
  readonly path: string
  readonly host: string
  /** By folded name; every field but those of the connection itself. */
  readonly fields: Readonly<Record<string, string>>
  /** One character a byte. */
  readonly body: string
}

/** One request at one server: what it passed on, and what it says itself that it was asked. */
export type Sighting = {
  readonly id: string
  readonly passedOn: Understood
  /** From its access log: with the logged fields alone. Absent for Node, and where the log has no line of this id. */
  readonly read?: Omit<Understood, 'body'>
}

/** An HTTP server that is asked what it understood. */
export type Witness = {
  readonly name: string
  readonly version: string
  readonly port: number
  /** Whole requests that it has understood and passed on so far. */
  count(): number
  /** Ends it if it still runs, and gives all of them in order; `refused` are log lines of requests that went no further. */
  stop(): Promise<{ sightings: Sighting[]; refused: string[] }>
}

/** Request fields that a witness writes into its log. */
export const LOGGED_FIELDS = [
  ...['authorization', 'cookie', 'forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto'],
  'x-user-id',
]
/** Fields of one connection, which each hop makes anew; and the id, by which sightings are joined. */
const OF_ONE_HOP = new Set(['connection', 'content-length', 'transfer-encoding', 'host', 'x-request-id'])

/** Starts Node, and nginx and Apache as far as they are installed, each in front of a recorder of its own. */
export async function startWitnesses(t: Scope): Promise<Witness[]> {
  const kinds = [nodeWitness()]
  if (!skipWithout('nginx')) kinds.push(nginxWitness())
  if (!skipWithout('apache2')) kinds.push(apacheWitness())
  const witnesses = await Promise.all(kinds)
  for (const { stop } of witnesses) t.after(stop)
  return witnesses
}

async function nodeWitness(): Promise<Witness> {
  const recorder = await startRecorder()
  return {
    ...{ name: 'node', version: `node/${process.version}`, port: recorder.port },
    count: () => recorder.requests.length,
    async stop() {
      await recorder.close()
      return { sightings: recorder.requests.map((passedOn) => sighting(passedOn)), refused: [] }
    },
  }
}

async function nginxWitness(): Promise<Witness> {
  const recorder = await startRecorder()
  const members = Object.entries({
    ...{ id: '$http_x_request_id', status: '$status', line: '$request', host: '$http_host' },
    ...{ method: '$request_method', target: '$request_uri', path: '$uri' },
    ...Object.fromEntries(LOGGED_FIELDS.map((name) => [name, `$http_${name.replaceAll('-', '_')}`])),
  })
  const server = await startNginx({
    // So nginx also tells of fields whose names it would silently leave out.
    http: `
      log_format access escape=json '{${members.map(([name, value]) => `"${name}":"${value}"`).join(',')}}';
      underscores_in_headers on; ignore_invalid_headers off; large_client_header_buffers 8 128k; client_max_body_size 0;`,
    server: `location / {
      proxy_pass http://127.0.0.1:${recorder.port}; proxy_http_version 1.1; proxy_ignore_client_abort on;
      proxy_set_header Host $http_host; proxy_set_header Connection close;
    }`,
  })
  return witnessInFront('nginx', server, recorder, (line) => JSON.parse(line) as LogLine)
}

async function apacheWitness(): Promise<Witness> {
  const recorder = await startRecorder()
  const fields = LOGGED_FIELDS.map((name) => `%{${name}}i`)
  const server = await startApache({
    modules: ['authz_core', 'proxy', 'proxy_http'],
    site: `
      LimitRequestLine 131072
      LimitRequestFieldSize 131072
      LimitRequestFields 1000
      AllowEncodedSlashes NoDecode
      ProxyPreserveHost On
      ProxyAddHeaders Off
      ProxyPass / http://127.0.0.1:${recorder.port}/ nocanon disablereuse=on`,
    logFormat: ['%{X-Request-Id}i', '%>s', '%r', '%{Host}i', '%m', '%U', ...fields].join('\\t'),
  })
  return witnessInFront('apache', server, recorder, (line) => {
    const [id = '', status = '', request = '', host = '', method = '', path = '', ...values] = line
      .split('\t')
      .map(unescapeApache)
    const named = Object.fromEntries(LOGGED_FIELDS.map((name, i) => [name, values[i] ?? '']))
    const target = /^\S+ (.*) HTTP\/[\d.]+$/.exec(request)?.[1] ?? request
    return { ...named, id, status, line: request, host, method, path, target }
  })
}

type LogLine = Record<string, string>

function witnessInFront(
  name: string,
  server: Awaited<ReturnType<typeof startNginx>>,
  recorder: Recorder,
  parse: (line: string) => LogLine,
): Witness {
  return {
    ...{ name, version: server.version, port: server.port },
    count: () => recorder.requests.length,
    async stop() {
      const lines = (await server.stop()).map(parse)
      await recorder.close()
      const byId = new Map(lines.map((line) => [line.id, line]))
      const sightings = recorder.requests.map((passedOn) => sighting(passedOn, byId.get(passedOn.id)))
      const known = new Set(sightings.map(({ id }) => id))
      const refused = lines.filter(({ id }) => !known.has(id!)).map(({ status, line }) => `${status} ${line}`)
      return { sightings, refused }
    },
  }
}

function sighting({ id, ...passedOn }: Recorded, line?: LogLine): Sighting {
  if (!line) return { id, passedOn }
  const { method = '', target = '', path = '', host = '' } = line
  const fields = LOGGED_FIELDS.map((name) => [name, line[name] ?? ''])
  const present = Object.fromEntries(fields.filter(([, value]) => value !== ''))
  return { id, passedOn, read: { method, target, path, host, fields: present } }
}

type Recorded = Understood & { readonly id: string }
type Recorder = Awaited<ReturnType<typeof startRecorder>>

/** A plain Node server that keeps every request that arrived whole. */
async function startRecorder() {
  const requests: Recorded[] = []
  const server = createServer({ maxHeaderSize: 262_144 }, (req, res) => {
    let body = ''
    req.on('data', (chunk: Buffer) => {
      body += chunk.toString('latin1')
    })
    req.on('end', () => {
      requests.push(recorded(req, body))
      res.end('understood\n')
    })
    req.on('error', () => undefined)
  })
  server.keepAliveTimeout = 60_000
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function recorded({ method = '', url = '', headers, rawHeaders }: IncomingMessage, body: string): Recorded {
  const fields: Record<string, string> = {}
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = foldFieldName(rawHeaders[i]!)
    if (OF_ONE_HOP.has(name)) continue
    const value = rawHeaders[i + 1]!
    // RFC 9110 §5.3 for lists, RFC 9113 §8.2.3 for cookies: one field, or several, say the same.
    fields[name] = name in fields ? `${fields[name]}${name === 'cookie' ? '; ' : ', '}${value}` : value
  }
  const id = String(headers['x-request-id'] ?? '')
  return { id, method, target: url, path: decodedPath(url), host: headers.host ?? '', fields, body }
}

/** The path of a target with its escapes decoded, which is what most programs look up. */
export function decodedPath(target: string): string {
  const path = target.split('?', 1)[0]!
  const octets = path.replaceAll(/%([0-9a-f]{2})/gi, (_, hex) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return octets
}

/** Apache writes quotes, backslashes and what is not printable as C does, and `-` for what is not there. */
function unescapeApache(text: string): string {
  if (text === '-') return ''
  const letters: Record<string, string> = { n: '\n', t: '\t', r: '\r', b: '\b', v: '\v', f: '\f' }
  return text.replaceAll(/\\(?:x([0-9a-f]{2})|(.))/gi, (_, hex, letter) =>
    hex === undefined ? (letters[letter] ?? letter) : String.fromCharCode(Number.parseInt(hex, 16)),
  )
}
