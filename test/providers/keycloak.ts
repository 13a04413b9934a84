import { join } from 'node:path'
import type { Landing } from '../kit/browsers/browser.ts'
import { freePort } from '../kit/ports.ts'
import { startRecordingProxy } from '../kit/recording-proxy.ts'
import { compareKeycloakProfile } from './keycloak-profile.ts'
import { cacheFolder, has, run, startProgram, unlessThere, whyNot } from './program.ts'
import {
  APP,
  CLIENT_ID,
  PERSON,
  type ProviderKind,
  type ProviderSignals,
  type RealProvider,
  throughForms,
} from './provider.ts'

const VERSION = '26.7.3'
const ARTIFACT = `org.keycloak:keycloak-quarkus-dist:${VERSION}:zip`
const DOWNLOAD_MS = 20 * 60_000
const START_MS = 300_000
const TOKEN_SECONDS = 10
const SECRET = 'keycloak-client-secret-0123456789'

/** Keycloak from Maven Central, in development mode with an in-memory database, on JDK 17 or later. */
export const keycloak: ProviderKind = {
  id: 'keycloak',
  title: `Keycloak ${VERSION}`,
  section: 'Keycloak',
  async missing() {
    if (!(await has('java', '-version'))) return 'needs a JDK, 17 or later'
    return (await has('mvn', '-version')) ? whyNot(installed) : 'needs mvn to fetch it from Maven Central'
  },
  start,
  limits: {},
}

async function start(): Promise<RealProvider> {
  const kc = await installed()
  const proxy = await startRecordingProxy()
  const port = await freePort()
  const base = `http://127.0.0.1:${port}`
  const program = await startProgram({
    command: kc,
    args: [
      ...['start-dev', '--db=dev-mem', '--http-host=127.0.0.1', `--http-port=${port}`],
      // Shared Signals is experimental; its pushes to plain http, and at once, are for this machine.
      ...['--features=ssf', '--spi-ssf-transmitter--default--allow-insecure-push-targets=true'],
      '--spi-ssf-transmitter--default--outbox-drainer-interval=1s',
      `--http-management-port=${await freePort()}`,
    ],
    env: {
      KC_BOOTSTRAP_ADMIN_USERNAME: 'admin',
      KC_BOOTSTRAP_ADMIN_PASSWORD: 'admin',
      JAVA_OPTS_KC_HEAP: '-Xms64m -Xmx768m',
    },
    readyUrl: `${base}/realms/master`,
    timeoutMs: START_MS,
  })
  proxy.forwardTo(port)
  const admin = administrator(base)
  const application = await startRecordingProxy()
  const { clientUuid, userId, scopeIds } = await makeRealm(admin, application.origin)
  // What a request causes, such as a logout token or an event, is issued by the address that the request came to.
  const atIssuer = administrator(proxy.origin)
  const issuer = `${proxy.origin}/realms/shop`
  return {
    ...{ issuer, jwks: `${issuer}/protocol/openid-connect/certs`, clientSecret: SECRET },
    substitutions: [['https://id.example.com/realms/shop', issuer]],
    tokenExchanges: proxy.tokenExchanges,
    rotates: true,
    passSignIn: throughForms,
    compareProfile: compareKeycloakProfile,
    leadToApplication: application.forwardTo,
    signOutElsewhere: () => atIssuer('POST', `/shop/users/${userId}/logout`),
    async signOutWithFrames(browser) {
      const client = (await admin('GET', `/shop/clients/${clientUuid}`)) as object
      await admin('PUT', `/shop/clients/${clientUuid}`, { ...client, frontchannelLogout: true })
      try {
        const page = await browser.navigate(`${issuer}/protocol/openid-connect/logout`, { from: issuer })
        return framesOf(await browser.submit(page))
      } finally {
        await admin('PUT', `/shop/clients/${clientUuid}`, { ...client, frontchannelLogout: false })
      }
    },
    async denySignIn(browser, page) {
      const withConsent = async (consentRequired: boolean) => {
        const client = (await admin('GET', `/shop/clients/${clientUuid}`)) as object
        await admin('PUT', `/shop/clients/${clientUuid}`, { ...client, consentRequired })
      }
      await withConsent(true)
      try {
        const consent = await browser.submit(page, PERSON)
        return await browser.submit(consent, { press: 'cancel' })
      } finally {
        await withConsent(false)
      }
    },
    removeUser: () => setEnabled(admin, userId, false),
    restoreUser: () => setEnabled(admin, userId, true),
    async rotateKeys() {
      const realm = (await admin('GET', '/shop')) as { id: string }
      const config = { priority: ['1000'], enabled: ['true'], active: ['true'], algorithm: ['RS256'] }
      await admin('POST', '/shop/components', {
        ...{ name: 'rotated', providerId: 'rsa-generated', parentId: realm.id },
        ...{ providerType: 'org.keycloak.keys.KeyProvider', config },
      })
    },
    narrow: () => admin('DELETE', `/shop/clients/${clientUuid}/optional-client-scopes/${scopeIds.billing}`),
    widen: () => admin('PUT', `/shop/clients/${clientUuid}/optional-client-scopes/${scopeIds.billing}`),
    signals: signalsOf({ admin: atIssuer, issuer, userId }),
    async stop() {
      await program.stop()
      await proxy.close()
      await application.close()
    },
  }
}

async function installed(): Promise<string> {
  const folder = await cacheFolder('keycloak')
  const home = join(folder, `keycloak-${VERSION}`)
  return unlessThere(join(home, 'bin', 'kc.sh'), async () => {
    const zip = join(folder, `keycloak-quarkus-dist-${VERSION}.zip`)
    await unlessThere(zip, () =>
      run('mvn', ['-q', '-B', 'dependency:copy', `-Dartifact=${ARTIFACT}`, `-DoutputDirectory=${folder}`], {
        timeoutMs: DOWNLOAD_MS,
        cwd: folder,
      }),
    )
    // A JDK is there already, and it unpacks zip files; the bits that say what may run are not kept.
    await run('jar', ['xf', zip], { timeoutMs: 120_000, cwd: folder })
    await run('chmod', ['+x', join(home, 'bin', 'kc.sh')], { timeoutMs: 10_000 })
  })
}

type Administrator = (method: string, path: string, body?: unknown) => Promise<unknown>

/** Calls of the Admin REST API; gives the JSON answer, or the id of what was made. */
function administrator(base: string): Administrator {
  async function token(): Promise<string> {
    const credentials = {
      grant_type: 'password',
      client_id: 'admin-cli',
      username: 'admin',
      password: 'admin',
    }
    const answer = await fetch(`${base}/realms/master/protocol/openid-connect/token`, {
      method: 'POST',
      body: new URLSearchParams(credentials),
    })
    return ((await answer.json()) as { access_token: string }).access_token
  }
  return async (method, path, body) => {
    const answer = await fetch(`${base}/admin/realms${path}`, {
      method,
      headers: { authorization: `Bearer ${await token()}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return text === '' ? answer.headers.get('location')?.split('/').pop() : JSON.parse(text)
  }
}

const RECEIVER = { clientId: 'shop-signals', secret: 'signals-secret-0123456789' }
const CAEP = 'https://schemas.openid.net/secevent/caep/event-type/'

/** The realm's transmitter of security events: a client for the receiver, and a stream that it creates. */
function signalsOf({
  admin,
  issuer,
  userId,
}: {
  admin: Administrator
  issuer: string
  userId: string
}): ProviderSignals {
  const authorization = 'Bearer keycloak-push-secret-0123456789'
  return {
    ...{ transmitter: issuer, audience: RECEIVER.clientId, authorization },
    async connect(pushUrl) {
      const uuid = await admin('POST', '/shop/clients', {
        ...{ ...RECEIVER, publicClient: false, standardFlowEnabled: false, serviceAccountsEnabled: true },
        attributes: {
          'ssf.enabled': 'true',
          'ssf.validPushUrls': pushUrl,
          'ssf.defaultSubjects': 'ALL',
        },
      })
      const scopes = (await admin('GET', '/shop/client-scopes')) as { id: string; name: string }[]
      for (const { id } of scopes.filter(({ name }) => name.startsWith('ssf')))
        await admin('PUT', `/shop/clients/${uuid}/optional-client-scopes/${id}`)
      const answer = await fetch(`${issuer}/protocol/openid-connect/token`, {
        method: 'POST',
        body: new URLSearchParams({
          ...{ grant_type: 'client_credentials', client_id: RECEIVER.clientId },
          ...{ client_secret: RECEIVER.secret, scope: 'ssf.read ssf.manage' },
        }),
      })
      const { access_token: token } = (await answer.json()) as { access_token: string }
      const stream = await fetch(`${issuer}/ssf/transmitter/streams`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({
          delivery: {
            ...{ method: 'urn:ietf:rfc:8935', endpoint_url: pushUrl },
            authorization_header: authorization,
          },
          events_requested: [`${CAEP}session-revoked`, `${CAEP}credential-change`],
          description: 'cloakroom',
        }),
      })
      if (!stream.ok) throw new Error(`the stream was not created: ${stream.status} ${await stream.text()}`)
    },
    logOutUser: () => admin('POST', `/shop/users/${userId}/logout`),
    resetPassword: () =>
      admin('PUT', `/shop/users/${userId}/reset-password`, {
        ...{ type: 'password', value: PERSON.password, temporary: false },
      }),
  }
}

/** @param application where the realm reaches the application. */
async function makeRealm(admin: Administrator, application: string) {
  await admin('POST', '', {
    ...{ realm: 'shop', enabled: true, revokeRefreshToken: true, refreshTokenMaxReuse: 0 },
    attributes: { 'ssf.transmitterEnabled': 'true' },
  })
  const scopeIds = {
    orders: await makeApiScope(admin, 'orders'),
    billing: await makeApiScope(admin, 'billing'),
  }
  const clientUuid = String(
    await admin('POST', '/shop/clients', {
      ...{ clientId: CLIENT_ID, secret: SECRET, publicClient: false, standardFlowEnabled: true },
      ...{ redirectUris: [`${APP}/bff/callback`], frontchannelLogout: false },
      attributes: {
        'backchannel.logout.url': `${application}/bff/backchannel-logout`,
        'backchannel.logout.session.required': 'true',
        'frontchannel.logout.url': `${APP}/bff/frontchannel-logout`,
        'frontchannel.logout.session.required': 'true',
        'post.logout.redirect.uris': `${APP}/bff/logged-out`,
        'access.token.lifespan': String(TOKEN_SECONDS),
      },
    }),
  )
  for (const id of Object.values(scopeIds))
    await admin('PUT', `/shop/clients/${clientUuid}/optional-client-scopes/${id}`)
  const userId = String(
    await admin('POST', '/shop/users', {
      ...{ username: PERSON.user, email: 'ada@example.com', emailVerified: true, enabled: true },
      ...{ firstName: 'Ada', lastName: 'Lovelace' },
      credentials: [{ type: 'password', value: PERSON.password, temporary: false }],
    }),
  )
  return { clientUuid, userId, scopeIds }
}

/** The addresses of the frames on a page. */
function framesOf({ body }: Landing): string[] {
  return [...body.matchAll(/<iframe[^>]*\ssrc="([^"]*)"/g)].map(([, url = '']) =>
    url.replaceAll('&amp;', '&'),
  )
}

/** A client scope whose Audience mapper puts its API into `aud`. */
async function makeApiScope(admin: Administrator, name: string): Promise<string> {
  const mapper = {
    ...{ name: 'audience', protocol: 'openid-connect', protocolMapper: 'oidc-audience-mapper' },
    config: {
      'included.custom.audience': `${name}-api`,
      'access.token.claim': 'true',
      'id.token.claim': 'false',
    },
  }
  return String(
    await admin('POST', '/shop/client-scopes', {
      ...{ name, protocol: 'openid-connect', protocolMappers: [mapper] },
      attributes: { 'include.in.token.scope': 'true', 'display.on.consent.screen': 'true' },
    }),
  )
}

async function setEnabled(admin: Administrator, userId: string, enabled: boolean): Promise<void> {
  const user = (await admin('GET', `/shop/users/${userId}`)) as object
  await admin('PUT', `/shop/users/${userId}`, { ...user, enabled })
}
