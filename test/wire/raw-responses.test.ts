import { RESPONSE_CASES } from './cases/responses.ts'
import { UNTOUCHED_RESPONSE_CASES } from './cases/untouched-responses.ts'
import { playTable } from './suite.ts'

playTable('responses', [...RESPONSE_CASES, ...UNTOUCHED_RESPONSE_CASES])
