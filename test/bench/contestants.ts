import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { createBrowser } from '../kit/browsers/browser.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { startRedis } from '../kit/store/redis.ts'
import { startServer } from './child.ts'

/** A proxy to be measured. */
export type Contestant = {
  readonly name: string
  readonly pid: number
  readonly port: number
  /** A whole request as it goes over the wire. */
  readonly request: string
}

/** Everything that takes part, each in a process of its own. */
export type Arena = {
  readonly bare: Contestant
  readonly cloakroom: Contestant
  stop(): Promise<void>
}

const PATH = '/api/orders/42'
const RESOURCE = 'https://orders.example.com'

/** Starts the upstream, the bare proxy, Redis, the identity provider and Cloakroom, and signs a user in. */
export async function openArena(env: Record<string, string>): Promise<Arena> {
  const closers: (() => Promise<unknown>)[] = []
  const stop = async () => {
    for (const close of closers.reverse()) await close()
  }
  try {
    const upstream = await startServer('json-upstream.ts')
    closers.push(upstream.stop)
    const { cookie, bearer, origin, replica } = await startSignedIn(upstream.origin, env, closers)
    const bare = await startServer('bare-proxy.ts', {
      ...env,
      UPSTREAM: upstream.origin,
      BEARER: bearer,
    })
    closers.push(bare.stop)
    const request = requestText(new URL(origin).host, cookie)
    const port = Number(new URL(replica.listenUrl).port)
    return {
      bare: { name: 'node:http + undici, nothing else', pid: bare.pid, port: bare.port, request },
      cloakroom: { name: 'cloakroom serve, signed in', pid: replica.pid, port, request },
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

async function startSignedIn(
  upstream: string,
  env: Record<string, string>,
  closers: (() => Promise<unknown>)[],
) {
  const redis = await startRedis()
  closers.push(redis.stop)
  const provider = await startRotatingProvider({ control: { accessTokenSeconds: 3600 } })
  closers.push(provider.close)
  const config = await writeReplicaConfig({
    provider: provider.settings,
    session: { store: { type: 'redis', url: redis.url } },
    resources: { orders: { resource: RESOURCE } },
    routes: [
      { path: '/api', upstream, resource: 'orders' },
      { path: '/', upstream, auth: 'anonymous' },
    ],
  })
  closers.push(config.remove)
  const replica = await startReplica({ configFile: config.file, env })
  closers.push(() => replica.stop())
  const browser = createBrowser({
    origin: config.publicUrl,
    connect: { [config.publicUrl]: replica.listenUrl },
  })
  await browser.signIn()
  const answer = await browser.fetch(PATH)
  if (answer.status !== 200) throw new Error(`the signed-in request got ${answer.status}: ${answer.body}`)
  const cookie = browser.cookieHeader(PATH)
  browser.close()
  const bearer = provider.issuedSecrets.find((secret) => jwtClaims(secret)?.aud === RESOURCE) ?? ''
  return { cookie, bearer, origin: config.publicUrl, replica }
}

/** What Chromium sends for a script's request. */
function requestText(host: string, cookie: string): string {
  const fields = {
    Host: host,
    Connection: 'keep-alive',
    'sec-ch-ua-platform': '"Linux"',
    'User-Agent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36',
    'sec-ch-ua': '"Chromium";v="140", "Not=A?Brand";v="24"',
    'X-CSRF': '1',
    'sec-ch-ua-mobile': '?0',
    Accept: '*/*',
    'Sec-Fetch-Site': 'same-origin',
    'Sec-Fetch-Mode': 'cors',
    'Sec-Fetch-Dest': 'empty',
    Referer: `http://${host}/`,
    'Accept-Encoding': 'gzip, deflate, br, zstd',
    'Accept-Language': 'en-GB,en;q=0.9',
    Cookie: cookie,
  }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return `GET ${PATH} HTTP/1.1\r\n${lines.join('')}\r\n`
}
