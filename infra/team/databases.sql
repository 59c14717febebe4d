-- The two databases, each of a user who cannot open the other; passwords come from the environment of psql.
-- docs/operator.md says how; containers run it by themselves.
\set ON_ERROR_STOP on
\getenv prefect PREFECT_PASSWORD
\getenv mlflow MLFLOW_PASSWORD
SET log_statement = 'none';                -- or the server's log would have the passwords,
SET log_min_error_statement = 'panic';     -- and at a mistake too
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE prefect FROM PUBLIC;
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
