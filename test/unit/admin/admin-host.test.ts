import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { hostname } from 'node:os'
import { after, before, describe, test } from 'node:test'
import { createAdminServer } from '../../../src/admin/server.ts'
import { problemAnswer } from '../../../src/http/problem.ts'
import type { LogFields } from '../../../src/log.ts'

describe('the admin listener, asked by the name in Host', () => {
  const hosts = [
    ...['metrics.example.com', 'console.example.com:8443', 'plain.example.com:80'],
    ...['cloakroom.shop.svc.cluster.local.', 'dotted.example.com.:9090'],
  ]
  const warned: LogFields[] = []
  const failed: LogFields[] = []
  const create = (machineName?: string) =>
    createAdminServer({
      metrics: { render: async () => ({ contentType: 'text/plain', text: 'cloakroom_build_info 1\n' }) },
      console: {
        pages: {
          async '/broken'() {
            throw Object.assign(new Error('no such gauge'), { code: 'ENOGAUGE' })
          },
        },
      },
      readiness: async () => ({ ready: true, draining: false, dependencies: { store: 'ok' } }),
      hosts: () => hosts,
      problemAnswer,
      log: {
        info() {},
        error: (fields) => void failed.push(fields),
        warn: (fields) => void warned.push(fields),
      },
      ...(machineName === undefined ? {} : { machineName }),
    })
  const server = create('Web-1.corp.example')
  before(() => once(server.listen(0, '127.0.0.1'), 'listening'))
  after(() => server.close())

  /** The whole answer to one raw message. */
  async function send(text: string, to = server): Promise<string> {
    const socket = connect((to.address() as AddressInfo).port, '127.0.0.1')
    let answer = ''
    socket.setEncoding('latin1').on('data', (part) => {
      answer += part
    })
    socket.end(text)
    await once(socket, 'close')
    return answer
  }
  const get = (host: string, page = '/metrics') =>
    send(`GET ${page} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
  const statusOf = (answer: string) => Number(answer.split(' ')[1])

  test('answers to IP addresses, loopback names and the name of the machine, with any port', async () => {
    for (const name of [
      '127.0.0.1',
      '10.1.2.3',
      '[::1]',
      '[2001:db8::7]',
      '[::ffff:10.1.2.3]',
      'localhost',
      'LocalHost',
      'localhost.',
      'admin.localhost',
      'web-1.corp.example',
      'WEB-1.corp.example',
      'web-1.corp.example.',
      'web-1',
    ]) {
      for (const port of ['', ':9090', ':31234']) {
        assert.equal(statusOf(await get(name + port)), 200, name + port)
      }
    }
  })

  test('answers to the names in admin.hosts: with any port, or with the one that is given', async () => {
    const rows: [string, number][] = [
      ['metrics.example.com', 200],
      ['METRICS.example.com:9090', 200],
      ['metrics.example.com.', 200],
      ['console.example.com:8443', 200],
      ['console.example.com', 421],
      ['console.example.com:9090', 421],
      ['plain.example.com', 200],
      ['plain.example.com:80', 200],
      ['plain.example.com:9090', 421],
      ['www.metrics.example.com', 421],
      ['cloakroom.shop.svc.cluster.local.:9090', 200],
      ['cloakroom.shop.svc.cluster.local', 200],
      ['dotted.example.com:9090', 200],
      ['dotted.example.com.:9090', 200],
      ['dotted.example.com', 421],
    ]
    for (const [host, status] of rows) assert.equal(statusOf(await get(host)), status, host)
  })

  test('refuses every other name with 421, on every page, and shows nothing of it', async () => {
    for (const host of [
      'evil.example',
      'evil.example:9090',
      '127.0.0.1.evil.example',
      'localhost.evil.example',
      'evillocalhost',
      'web-1.evil.example',
      'corp.example',
      'xlocalhost:9090',
      '0x7f000001.evil.example',
      '2130706433',
      '127.1',
      '1.2.3.4.5',
      '256.1.1.1',
    ]) {
      for (const page of ['/metrics', '/livez', '/readyz', '/', '/nothing']) {
        const answer = await get(host, page)
        assert.equal(statusOf(answer), 421, `${host} ${page}`)
        assert.match(answer, /cloakroom-error: misdirected_request/i)
        assert.match(answer, /content-type: application\/problem\+json/i)
        assert.doesNotMatch(answer, /cloakroom_build_info|evil|draining/)
      }
    }
    assert.equal(
      statusOf(
        await send(
          'POST /metrics HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
        ),
      ),
      421,
    )
  })

  test('answers 500 for a page that fails, and says why in the log alone', async () => {
    const answer = await get('127.0.0.1', '/broken')
    assert.equal(statusOf(answer), 500)
    assert.doesNotMatch(answer, /gauge/i)
    const err = { name: 'Error', message: 'no such gauge', code: 'ENOGAUGE' }
    assert.deepEqual(failed, [{ path: '/broken', err }])
  })

  test('refuses no Host, two, and one that is no host with 400', async () => {
    for (const host of [
      '',
      'a b',
      'user@127.0.0.1',
      '127.0.0.1, 127.0.0.1',
      '127.0.0.1:port',
      '[::1',
      '127.0.0.1/x',
      '.',
      ':9090',
    ]) {
      const answer = await get(host)
      const status = host === '.' ? 421 : 400
      assert.equal(statusOf(answer), status, JSON.stringify(host))
    }
    for (const lines of [
      '',
      'Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n',
      'Host: 127.0.0.1\r\nhOST: evil.example\r\n',
    ]) {
      for (const version of ['1.0', '1.1']) {
        const answer = await send(`GET /metrics HTTP/${version}\r\n${lines}Connection: close\r\n\r\n`)
        assert.equal(statusOf(answer), 400, `${version} ${lines}`)
        assert.doesNotMatch(answer, /cloakroom_build_info/)
      }
    }
    assert.equal(statusOf(await send('GET /livez HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n')), 200)
  })

  test('does not let the target of the request stand for its Host', async () => {
    const absolute = (host: string) =>
      send(`GET http://127.0.0.1/metrics HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    assert.equal(statusOf(await absolute('evil.example')), 421)
    assert.equal(statusOf(await absolute('127.0.0.1')), 404)
  })

  test('tells the log by which name it was called, once and then at most once a minute', () => {
    assert.equal(warned.length, 1)
    assert.equal(warned[0]?.code, 'misdirected_request')
    assert.equal(warned[0]?.host, 'console.example.com')
  })

  test('knows the name of the machine it runs on', async (t) => {
    const here = create()
    await once(here.listen(0, '127.0.0.1'), 'listening')
    t.after(() => here.close())
    const line = (host: string) => `GET /livez HTTP/1.1\r\nHost: ${host}:9090\r\nConnection: close\r\n\r\n`
    assert.equal(statusOf(await send(line(hostname()), here)), 200)
    assert.equal(statusOf(await send(line('web-1'), here)), hostname() === 'web-1' ? 200 : 421)
  })
})
