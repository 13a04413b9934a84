import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { createGenerations, type Generation } from '../../../src/app/generations.ts'

/** A generation that writes down what happens to it. */
function generation(name: string, events: string[]): Generation {
  return {
    guard: {} as Generation['guard'],
    edge: () => void events.push(`${name} serves`),
    tunnel: {
      upgrade: async () => void events.push(`${name} upgrades`),
      closeAll: () => void events.push(`${name} closes tunnels`),
    },
    upstreams: { endEventStreams: () => void events.push(`${name} ends event streams`) },
    release: async () => void events.push(`${name} released`),
  }
}

const REQUEST = {} as IncomingMessage
const answer = () => new EventEmitter() as unknown as ServerResponse
const socket = () => new EventEmitter() as unknown as Socket

test('what began under one configuration ends under it, and the last of it releases it', () => {
  const events: string[] = []
  const generations = createGenerations(generation('first', events))
  const [slow, tunnel] = [answer(), socket()]
  generations.request(REQUEST, slow)
  generations.upgrade(REQUEST, tunnel, Buffer.alloc(0))
  generations.succeed(generation('second', events))
  generations.request(REQUEST, answer())
  assert.deepEqual(events.splice(0), ['first serves', 'first upgrades', 'second serves'])
  slow.emit('close')
  assert.deepEqual(events, [])
  tunnel.emit('close')
  assert.deepEqual(events.splice(0), ['first released'])
})

test('one with nothing under way is released at once', () => {
  const events: string[] = []
  const generations = createGenerations(generation('first', events))
  const done = answer()
  generations.request(REQUEST, done)
  done.emit('close')
  generations.succeed(generation('second', events))
  assert.deepEqual(events, ['first serves', 'first released'])
})

test('at the end every tunnel closes, and every event stream ends, also of a configuration that comes after', async () => {
  const events: string[] = []
  const generations = createGenerations(generation('first', events))
  generations.upgrade(REQUEST, socket(), Buffer.alloc(0))
  generations.succeed(generation('second', events))
  events.length = 0
  generations.closeStreams()
  const endsOf = (name: string) => [`${name} closes tunnels`, `${name} ends event streams`]
  assert.deepEqual(events.splice(0), [...endsOf('first'), ...endsOf('second')])
  generations.succeed(generation('third', events))
  assert.deepEqual(events.splice(0), ['second released', ...endsOf('third')])
  await generations.releaseAll()
  assert.deepEqual(events, ['first released', 'third released'])
})
