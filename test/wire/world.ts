import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import type { Browser } from '../kit/browsers/browser.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { type RecordingUpstream, startRecordingUpstream } from './recording-upstream.ts'

/** The origin browsers see; another than where it listens, so that nothing depends on the latter. */
export const APP = 'https://app.example.test'
export const PARTNER = 'https://partner.example.test'
/** A name inside the cluster. */
export const OTHER_HOST = 'app.internal:8080'
export const ADMIN = 'https://admin.example.test'

/** How the Cloakroom of a table is configured; the tables that need no other share the first. */
export const WORLDS: Readonly<Record<string, ConfigData>> = {
  usual: {},
  /** The client of the test is a proxy that is believed. */
  trusting: { trustProxy: ['127.0.0.1'] },
  /** Limits small enough to be reached at once. */
  tight: {
    limits: {
      headerSize: '8KiB',
      headerCount: 20,
      urlLength: '1KiB',
      headerTimeout: '1s',
    },
  },
}
export type WorldName = 'usual' | 'trusting' | 'tight'

/** One Cloakroom with a signed-in user, before an upstream that records every byte. */
export type World = {
  readonly cloakroom: RunningCloakroom
  readonly upstream: RecordingUpstream
  readonly port: number
  readonly alice: Browser
  readonly bob: Browser
  /** Connections to a place where nothing of ours has any business. */
  readonly decoy: { readonly authority: string; connections: number }
  /** Values for the `{{names}}` in what is sent. */
  readonly values: Readonly<Record<string, string>>
  /** Secrets of the provider, and what is sealed in cookies. */
  secrets(): string[]
  close(): Promise<void>
}

/** Claims that would end a header, if they were let. */
const HOSTILE_CLAIMS = {
  nickname: 'a\r\nX-Wicked: 1\r\n\r\nGET /wicked HTTP/1.1',
  name: 'Zoë 💥\u0000',
  picture: 'x'.repeat(65_536),
  groups: ['a,admin', 'b'],
}

export async function startWorld(name: WorldName = 'usual'): Promise<World> {
  const provider = await startRotatingProvider({ control: { idTokenClaims: HOSTILE_CLAIMS } })
  const upstream = await startRecordingUpstream()
  const decoy = await startDecoy()
  const cloakroom = await startCloakroom({
    publicUrl: APP,
    allowedOrigins: [PARTNER],
    hosts: [OTHER_HOST],
    provider: provider.settings,
    resources: { admin: { resource: ADMIN, audience: ADMIN } },
    routes: routesTo(upstream.origin),
    ...WORLDS[name],
  })
  const [alice, bob] = [cloakroom.browser(), cloakroom.browser()]
  await alice.signIn({ returnUrl: '/api/public' })
  provider.control.user = 'bob'
  await bob.signIn({ returnUrl: '/api/public' })
  return {
    ...{ cloakroom, upstream, alice, bob, decoy: decoy.seen },
    port: Number(new URL(cloakroom.listenUrl).port),
    values: {
      cookie: alice.cookieHeader(),
      bob: bob.cookieHeader(),
      decoy: decoy.seen.authority,
      upstream: upstream.authority,
      listen: new URL(cloakroom.listenUrl).host,
      issuer: provider.issuer,
      bobsLogout: (await bob.fetch('/bff/user')).json()['bff:logout_url'],
      alicesLogout: (await alice.fetch('/bff/user')).json()['bff:logout_url'],
    },
    secrets: () => [...provider.issuedSecrets, ...[alice, bob].map((one) => cookieValue(one.cookieHeader()))],
    close: async () => {
      await cloakroom.close()
      await Promise.all([upstream.close(), provider.close(), decoy.close()])
    },
  }
}

function cookieValue(header: string): string {
  return header.slice(header.indexOf('=') + 1)
}

function routesTo(upstream: string): ConfigData[] {
  const open = { upstream, auth: 'anonymous' }
  const admin = { upstream, resource: 'admin' }
  return [
    { ...open, path: '/api/public' },
    { ...open, path: '/exposed', encodedSlashes: 'pass' },
    { ...admin, path: '/exposed/inner' },
    { ...open, path: '/api/limited', methods: ['GET', 'POST'] },
    { ...open, path: '/api/rewrite', rewrite: '/v1' },
    { ...open, path: '/strip', rewrite: '/' },
    { ...open, path: '/api/small', maxBody: '8B' },
    { ...open, path: '/api/hasty', timeout: { response: '300ms', idle: '300ms' } },
    { ...open, path: '/ws-open', websocket: true, preserveHost: true },
    { ...admin, path: '/ws-open/inner', websocket: true },
    { ...admin, path: '/api/admin' },
    { ...admin, path: '/api/optional', auth: 'optional' },
    { ...admin, path: '/download', csrf: 'fetch-metadata' },
    { ...admin, path: '/ws', websocket: true },
    {
      ...{ upstream, path: '/api/me' },
      headers: {
        'x-user-id': '{claims.sub}',
        'x-nickname': '{claims.nickname}',
        'x-name': '{claims.name}',
        'x-picture': '{claims.picture}',
        'x-groups': '{claims.groups}',
        'x-tier': 'gold',
      },
    },
  ]
}

/** A server that nobody is ever sent to. */
async function startDecoy() {
  const seen = { authority: '', connections: 0 }
  const server = createServer((socket) => {
    seen.connections += 1
    socket.destroy()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  seen.authority = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    seen,
    close: () => new Promise<void>((resolve) => server.close(() => resolve())),
  }
}
