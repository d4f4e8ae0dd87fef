// The frames of Engram's WebSockets in JSON, made by scripts/typescript from the schemas of the server: do not change
// them here. In msgpack (the subprotocol engram.msgpack) a Packed may stand for nested lists.

export type Numbers = (number | null | Numbers)[];

export interface Packed {
  shape: number[];
  /** The numbers, little-endian, row by row. */
  data: Uint8Array;
  /** float32 where it is left out. */
  dtype?: "float32" | "float16" | "int16";
  /** What int16 numbers are multiplied by. */
  scale?: number;
}

/** The answer to a frame that came before, and whose outputs can no longer be computed. */
export interface DuplicateFrame {
  type: "result";
  seq: number | null;
  step: number;
  duplicate: true;
}

/** The last frame before the server closes the socket: a problem document, with further members where they apply. */
export interface ErrorFrame {
  type: "error";
  title: string;
  status: number;
  /** stable; docs/errors.md lists them */
  code: string;
  detail: string;
  place?: string | null;
  expected?: string | null;
  got?: string | null;
  /** that of the header X-Request-ID, and of the server's log */
  request_id?: string | null;
  [member: string]: unknown;
}

/** A frame of a client over a WebSocket. */
export interface FrameRequest {
  inputs: number[][] | number[];
  trace?: string[];
  seq?: number | null;
  /** of the arrays in an answer in msgpack */
  dtype?: "float32" | "float16";
}

/** Steps of many sessions of one socket, each by the number that it got when it was opened there. */
export interface ManyFrame {
  /** of each session, of any lengths */
  inputs: number[][][];
  /** names of the traces to return */
  trace?: string[];
  /** of the arrays in an answer in msgpack */
  dtype?: "float32" | "float16";
  sessions: number[];
  seqs?: (number | null)[] | null;
}

/** Sessions for a socket: the ids of open ones, or a number of new ones of a model. */
export interface OpenFrame {
  open?: string[] | null;
  model?: string | null;
  count?: number;
  /** memory locations, where not as many as the model's card says */
  memory_size?: number | null;
  /** gates to hold at values: name -> a list in the shape of its trace, null for what is free */
  force?: Record<string, Numbers> | null;
}

/** The place of a session: its model and its step. */
export interface Place {
  /** its id */
  session: string;
  model: string;
  /** memory locations; null without a memory */
  memory_size: number | null;
  /** steps that the session has taken */
  step: number;
  /** the number of the last frame that was carried out; null: none was numbered */
  seq: number | null;
  /** the gates that it holds at values; null: none */
  force: Record<string, Numbers> | null;
}

/** The answer to a frame of one session. */
export interface ResultFrame {
  type: "result";
  seq: number | null;
  /** steps that the session has taken */
  step: number;
  /** [T][output_size] */
  outputs: number[][];
  /** name -> [T][...] */
  trace: Record<string, Numbers>;
}

/** The answer to a frame of many sessions. */
export interface ResultsFrame {
  type: "results";
  /** steps that each session has taken; null for one that failed */
  steps: (number | null)[];
  /** [B][T][output_size]; null for a session that failed */
  outputs: (number[][] | null)[];
  /** name -> [B][T][...] */
  trace: Record<string, (Numbers | null)[]>;
  errors: SessionProblem[];
  /** places of sessions whose outputs can no longer be computed */
  duplicates?: number[];
}

/** The greeting of a stream of one session. */
export interface SessionFrame {
  /** its id */
  session: string;
  model: string;
  /** memory locations; null without a memory */
  memory_size: number | null;
  /** steps that the session has taken */
  step: number;
  /** the number of the last frame that was carried out; null: none was numbered */
  seq: number | null;
  /** the gates that it holds at values; null: none */
  force: Record<string, Numbers> | null;
  type: "session";
}

/** The error of one session among many. */
export interface SessionProblem {
  type: string;
  title: string;
  status: number;
  /** stable; docs/errors.md lists them */
  code: string;
  detail: string;
  place?: string | null;
  expected?: string | null;
  got?: string | null;
  /** that of the header X-Request-ID, and of the server's log */
  request_id?: string | null;
  /** the place of the session in the frame */
  index: number;
  /** its number on this socket */
  session: number;
  [member: string]: unknown;
}

/** The sessions that a frame has opened, numbered from `first` on. */
export interface SessionsFrame {
  type: "sessions";
  first: number;
  sessions: Place[];
}

/** The greeting of a socket of many sessions, with those that its URL opened. */
export interface StreamsFrame {
  type: "streams";
  models: string[];
  /** the number of the first of these sessions on this socket */
  first: number;
  sessions: Place[];
}

export type StreamRequest = FrameRequest;

export type StreamsRequest = OpenFrame | ManyFrame;

export type StreamAnswer = SessionFrame | ResultFrame | DuplicateFrame | ErrorFrame;

export type StreamsAnswer = StreamsFrame | SessionsFrame | ResultsFrame | ErrorFrame;
