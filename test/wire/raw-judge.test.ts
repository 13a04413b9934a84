import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { parseMessage } from './http-message.ts'
import { findFaults } from './judge.ts'
import { parseAnswers } from './raw-kit.ts'
import type { SeenRequest } from './recording-upstream.ts'
import { createRunner, type Observation } from './run-case.ts'
import { forwarded, get, refused, row } from './wire-case.ts'
import { startWorld, type World } from './world.ts'

const CASE = row('A1', [], 'a request as it should be', get('/api/public/x'), forwarded('GET /api/public/x'))

describe('the judge of the tables', () => {
  let world: World
  let good: Observation
  before(async () => {
    world = await startWorld()
    good = await createRunner(world)(CASE)
  })
  after(() => world.close())

  function withHead(change: (raw: string) => string): Observation {
    const [first] = good.requests
    const changed = parseMessage(change(first!.raw), 0, 'request')!
    return { ...good, requests: [{ ...changed, connection: 0 } satisfies SeenRequest] }
  }
  const withAnswer = (raw: string): Observation => ({ ...good, received: parseAnswers(raw, ['GET'], true) })

  test('has nothing against a request that is as it should be', () => {
    assert.deepEqual(findFaults(world, CASE, good), [])
  })

  test('sees each thing that may go wrong on the way to the upstream', () => {
    const wrong: Record<string, Observation> = {
      'one request too many': { ...good, requests: [...good.requests, ...good.requests] },
      'none at all': { ...good, requests: [] },
      'half a request beside it': { ...good, abandoned: ['GET /'] },
      'another connection state': { ...good, connection: 'closed' },
      'another user who is not served': { ...good, broken: ['a new connection: ""'] },
      'another request line': withHead((raw) => raw.replace('/api/public/x', '/api/admin/x')),
      'a second host': withHead((raw) => raw.replace('\r\n', '\r\nHost: evil.test\r\n')),
      'another host': withHead((raw) => raw.replace(/host: .*/, 'host: other.test')),
      'a credential': withHead((raw) => raw.replace('\r\n', '\r\nAuthorization: Bearer x\r\n')),
      'a forwarding field of the client': withHead((raw) =>
        raw.replace('\r\n', '\r\nX_Forwarded_For: 6.6.6.6\r\n'),
      ),
      'a forwarding field of the client with dots': withHead((raw) =>
        raw.replace('\r\n', '\r\nX.Forwarded.For: 6.6.6.6\r\n'),
      ),
      'a proxy of the client': withHead((raw) => raw.replace('\r\n', '\r\nProxy: http://x\r\n')),
      'a cookie of ours': withHead((raw) => raw.replace('\r\n', '\r\nCookie: __Host-Http-cloakroom=1\r\n')),
      'two framings': withHead((raw) =>
        raw.replace('\r\n', '\r\nContent-Length: 0\r\nContent-Length: 0\r\n'),
      ),
      'a bare LF': withHead((raw) => raw.replace('\r\n', '\n')),
      'what the attacker wrote': withHead((raw) => raw.replace('\r\n', '\r\nX-Any: evil\r\n')),
    }
    for (const [name, seen] of Object.entries(wrong)) {
      assert.notDeepEqual(findFaults(world, CASE, seen), [], name)
    }
  })

  test('sees each thing that may go wrong on the way back', () => {
    const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n'
    const refusal = row('A1', [], 'a refusal', get('/api/public/x'), refused(400, 'bad_request', 'either'))
    const nothing = { ...good, requests: [] }
    assert.notDeepEqual(findFaults(world, CASE, withAnswer(`${ok}evil`)), [], "another's answer")
    assert.notDeepEqual(findFaults(world, CASE, withAnswer(`${ok}ev`)), [], 'half an answer')
    assert.notDeepEqual(
      findFaults(world, refusal, { ...nothing, received: withAnswer(`${ok}evil`).received }),
      [],
    )
    const problem = 'HTTP/1.1 400 Bad Request\r\nCloakroom-Error: bad_request\r\nContent-Length: 0\r\n'
    const received = (fields: string) => ({
      ...nothing,
      received: withAnswer(`${problem}${fields}\r\n`).received,
    })
    assert.deepEqual(findFaults(world, refusal, received('Cache-Control: no-store\r\n')), [])
    assert.notDeepEqual(findFaults(world, refusal, received('')), [], 'a problem that may be cached')
    const leak = `Cache-Control: no-store\r\nX-Leak: ${world.secrets().at(0)}\r\n`
    assert.notDeepEqual(findFaults(world, refusal, received(leak)), [], 'a secret')
  })
})
