import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type ScriptedAzure, startEntraV2 } from '../../kit/azure/azure-ad.ts'
import { createBrowser } from '../../kit/browsers/browser.ts'
import { startCloakroom } from '../../kit/cloakroom.ts'
import { startReplica, writeReplicaConfig } from '../../kit/replica.ts'
import { assertNoSecrets } from '../../kit/secrets.ts'
import { startUpstream, type Upstream } from '../../kit/upstream/upstream.ts'

describe('Cloakroom under test', () => {
  let entra: ScriptedAzure
  let api: Upstream
  before(async () => {
    ;[entra, api] = await Promise.all([startEntraV2(), startUpstream()])
  })
  after(async () => {
    await Promise.all([entra.close(), api.close()])
  })

  const config = () => ({
    provider: entra.settings,
    resources: {
      orders: { scopes: ['api://orders/.default'] },
      billing: { scopes: ['api://billing/.default'] },
    },
    routes: [
      { path: '/api/orders', upstream: api.url, resource: 'orders' },
      { path: '/api/billing', upstream: api.url, resource: 'billing' },
      { path: '/', upstream: api.url, auth: 'anonymous' },
    ],
  })

  test('runs in this process behind an https origin, and a scripted browser signs in', async () => {
    const cloakroom = await startCloakroom({ ...config(), publicUrl: 'https://app.example.test' })
    const browser = cloakroom.browser()
    const page = await browser.signIn({ returnUrl: '/home' })
    assert.deepEqual([page.status, page.url.href], [200, 'https://app.example.test/home'])
    assert.deepEqual(browser.jar.rejected, [])
    assert.equal((await browser.fetch('/api/orders')).json().aud, 'api://orders')
    assert.equal((await browser.fetch('/api/billing')).json().aud, 'api://billing')
    assert.deepEqual(entra.violations, [])
    assertNoSecrets({ ...browser.haystacks(), log: cloakroom.logs.join('\n') }, entra.issuedSecrets)
    await cloakroom.close()
  })

  test('runs as replicas that share one config file and one public URL', async () => {
    const shared = await writeReplicaConfig(config())
    const replicas = await Promise.all([1, 2].map(() => startReplica({ configFile: shared.file })))
    for (const { listenUrl } of replicas) {
      const browser = createBrowser({ origin: shared.publicUrl })
      const answer = await browser.open('/bff/login?returnUrl=/', { via: listenUrl })
      browser.close()
      const location = new URL(answer.headers.location ?? '')
      assert.equal(location.searchParams.get('redirect_uri'), `${shared.publicUrl}/bff/callback`)
    }
    const exits = await Promise.all(replicas.map((replica) => replica.stop()))
    assert.deepEqual(exits, [
      { code: 0, signal: null },
      { code: 0, signal: null },
    ])
    await shared.remove()
  })

  test('a replica that cannot start tells why', async () => {
    const shared = await writeReplicaConfig({ routes: [] })
    await assert.rejects(
      startReplica({ configFile: shared.file }),
      /ended with 78 before it was ready[\s\S]*provider/,
    )
    await shared.remove()
  })
})
